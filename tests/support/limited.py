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

# Fills one file in a way of its choice, in ever smaller pieces, until not even a block finds room.
_FILLER = """
import mmap, os, sys
way, path, want = sys.argv[1], sys.argv[2], int(sys.argv[3])
block, written, at, refused = 4096, 0, 0, 0
piece = block if way == "sparse" else 256 * block
memory = mmap.mmap(-1, piece)  # aligned as O_DIRECT wants it
memory.write(os.urandom(piece))
try:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | (os.O_DIRECT if way == "direct" else 0), 0o600)
    if way == "sparse":  # XFS gives a file that gets longer the blocks between, too
        os.ftruncate(fd, 16 * want)
    while written < want:
        try:
            if way == "allocate":
                os.posix_fallocate(fd, at, piece)
                done = piece
            else:
                done = os.pwrite(fd, memoryview(memory)[:piece], at)
        except OSError:
            if piece == block:
                raise
            piece //= 16
            continue
        written += done
        at += 16 * done if way == "sparse" else done
    os.fsync(fd)
except OSError as error:
    refused = error.errno
print(written, refused)
"""

WAYS = ("append", "sparse", "allocate", "direct")

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


def start_filling(path: Path, way: str, want_bytes: int) -> subprocess.Popen[str]:
    """Start a process that fills a file as nobody, in one of WAYS, to the last block that it is given."""
    command = [*BOUND, sys.executable, "-c", _FILLER, way, path.name, str(want_bytes)]
    return subprocess.Popen(command, cwd=path.parent, stdout=subprocess.PIPE, text=True)


def run_as_pod(folder: Path, *command: str) -> None:
    """Run a program as nobody in a folder; CalledProcessError where it fails."""
    subprocess.run([*BOUND, *command], cwd=folder, check=True, stdout=subprocess.DEVNULL)


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
