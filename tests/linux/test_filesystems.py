"""The filesystems that tests make: they hold what they promise, and leave nothing."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from provisioner.linux.mount import MS_BIND, mount
from provisioner.linux.mountinfo import read_mountinfo
from tests.support.filesystems import DEFAULT_BYTES, LOOP_KINDS, Filesystem, loop_filesystem, tmpfs


def _attached(device: str, image: Path) -> bool:
    """Tell whether a loop device shows this image; another session may have taken it since."""
    try:
        backing = Path("/sys/block", Path(device).name, "loop/backing_file").read_text()
    except FileNotFoundError:
        return False
    return backing.removesuffix("\n").removesuffix(" (deleted)") == str(image)


def _mounted_below(path: Path) -> list[str]:
    return [found.mount_point for found in read_mountinfo() if found.mount_point.startswith(str(path))]


def test_each_kind_is_what_it_says(filesystem: Filesystem) -> None:
    found = next(found for found in read_mountinfo() if found.mount_point == str(filesystem.path))
    assert (found.fs_type, found.source) == (filesystem.kind, filesystem.device)
    assert _attached(filesystem.device, filesystem.image)
    total = os.statvfs(filesystem.path)
    assert total.f_blocks * total.f_frsize > DEFAULT_BYTES[filesystem.kind] // 2


@pytest.mark.parametrize("kind", LOOP_KINDS)
def test_nothing_is_left_after_a_failure(kind: str, tmp_path: Path) -> None:
    """Also binds elsewhere and stacked ones are undone."""

    def fail() -> None:
        with loop_filesystem(kind, tmp_path) as found:
            seen.append(found)
            for target in (tmp_path / "elsewhere", found.path):
                target.mkdir(exist_ok=True)
                mount(found.path, target, flags=MS_BIND)
            raise ZeroDivisionError

    seen: list[Filesystem] = []
    with pytest.raises(ZeroDivisionError):
        fail()
    assert not _attached(seen[0].device, seen[0].image)
    assert not _mounted_below(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", kind}


def test_a_mount_that_is_held_is_told_and_taken_away(tmp_path: Path) -> None:
    with ExitStack() as stack, pytest.raises(OSError, match="busy") as caught, tmpfs(tmp_path / "held") as path:
        stack.callback(os.close, os.open(path, os.O_RDONLY))
    assert caught.value.errno == errno.EBUSY
    assert not _mounted_below(tmp_path)


_ABANDON = """
import sys, time
from pathlib import Path
from tests.support.filesystems import isolate_mounts, loop_filesystem
isolate_mounts()
with loop_filesystem("ext4", Path(sys.argv[1])) as found:
    print(found.device, found.image, flush=True)
    time.sleep(60)
"""


def test_nothing_is_left_by_a_killed_session(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _ABANDON, str(tmp_path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as session:
        assert session.stdout is not None
        device, image = session.stdout.readline().split()
        assert _attached(device, Path(image))
        assert not _mounted_below(tmp_path), "its mounts are not ours"
        session.send_signal(signal.SIGKILL)
    # The kernel ends the namespace of a killed process in its own time.
    deadline = time.monotonic() + 10
    while _attached(device, Path(image)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
