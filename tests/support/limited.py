"""Writing as a pod does: by a process that no limit makes an exception for."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20

# Writes one file until it is full or refused, and says what came of it.
_WRITER = """
import errno, os, sys
path, want, chunk, sync = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "True"
data, written, refused = os.urandom(chunk), 0, 0
try:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    while written < want:
        written += os.write(fd, data[: want - written])
        if sync:
            os.fsync(fd)
    os.fsync(fd)
except OSError as error:
    refused = error.errno
print(written, refused)
"""

# Writes one file past the page cache; a block of memory that is mapped is aligned as the disk wants it.
_DIRECT_WRITER = """
import mmap, os, sys
block, written, refused = mmap.mmap(-1, 1 << 20), 0, 0
block.write(os.urandom(1 << 20))
try:
    fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o600)
    while written < int(sys.argv[2]):
        written += os.write(fd, block)
except OSError as error:
    refused = error.errno
print(written, refused)
"""

# Without CAP_SYS_RESOURCE, which ext4's limits do not bind; and without any other capability.
BOUND = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]


@dataclass(frozen=True, slots=True)
class Written:
    """What a writer got done, and the errno that ended it, 0 where none did."""

    bytes: int
    errno: int


def start_writing(path: Path, want_bytes: int, *, chunk: int = MIB, sync: bool = True) -> subprocess.Popen[str]:
    """Start a process that appends to a file as nobody, whom its folder must let write."""
    command = [*BOUND, sys.executable, "-c", _WRITER, path.name, str(want_bytes), str(chunk), str(sync)]
    # By its folder, which is entered before the rights go: those above it let nobody in.
    return subprocess.Popen(command, cwd=path.parent, stdout=subprocess.PIPE, text=True)


def write_directly_as_pod(path: Path, want_bytes: int) -> Written:
    """Write a file as nobody with O_DIRECT, a mebibyte at a time, and say how far it came."""
    command = [*BOUND, sys.executable, "-c", _DIRECT_WRITER, path.name, str(want_bytes)]
    return finish(subprocess.Popen(command, cwd=path.parent, stdout=subprocess.PIPE, text=True))


# Says the errno with which room for a file is refused, 0 where it is given.
_ALLOCATOR = """
import os, sys
try:
    os.posix_fallocate(os.open(sys.argv[1], os.O_RDWR), 0, int(sys.argv[2]))
except OSError as error:
    print(error.errno)
else:
    print(0)
"""


def allocate_as_pod(path: Path, size_bytes: int) -> int:
    """Allocate a file as nobody; gives the errno, 0 where it worked."""
    command = [*BOUND, sys.executable, "-c", _ALLOCATOR, path.name, str(size_bytes)]
    return int(subprocess.run(command, cwd=path.parent, check=True, capture_output=True, text=True).stdout)


def finish(writer: subprocess.Popen[str]) -> Written:
    """Wait for a writer."""
    answer, _ = writer.communicate(timeout=120)
    assert writer.returncode == 0
    written, refused = answer.split()
    return Written(int(written), int(refused))


def write_as_pod(path: Path, want_bytes: int, *, chunk: int = MIB, sync: bool = True) -> Written:
    """Append to a file as nobody, and say how far it came."""
    return finish(start_writing(path, want_bytes, chunk=chunk, sync=sync))
