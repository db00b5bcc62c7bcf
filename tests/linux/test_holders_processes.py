"""Real processes that hold a real mount in each way there is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from provisioner.holders import Holder, describe, holders_of
from provisioner.linux.mount import MS_BIND, UMOUNT_NOFOLLOW, mount, umount2
from provisioner.linux.statx import statx

# Each does as told with the path in argv[1], says so, and waits for the end of its input.
PROGRAMS = {
    "cwd": "os.chdir(path)",
    "root": "os.chroot(path); fd = os.open('/', os.O_RDONLY); os.fchdir(home); os.close(fd)",
    "open file": "held = open(path + '/file')",
    "mapped": "file = open(path + '/file'); held = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ); forget_files()",
}
FRAME = """
import mmap, os, stat, sys
path = sys.argv[1]
home = os.open('/', os.O_RDONLY)
def forget_files():  # the map has a descriptor of its own
    for fd in map(int, os.listdir('/proc/self/fd')):
        if os.path.exists(f'/proc/self/fd/{{fd}}') and stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
{what}
print('ready', flush=True)
sys.stdin.read()
"""


@contextmanager
def process(what: str, path: Path, *before: str) -> Iterator[int]:
    """Run a program that holds a path, and give its process id."""
    arguments = [*before, sys.executable, "-c", FRAME.format(what=what), str(path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout
        assert running.stdout.readline() == b"ready\n"
        try:
            yield running.pid
        finally:
            running.communicate()


@pytest.fixture
def target(folder: Path) -> Iterator[Path]:
    """Give a bind mount of a directory, beside a second one that holders of must not be mistaken for."""
    source, target, other = folder / "source", folder / "target", folder / "other"
    for path in (source, target, other):
        path.mkdir()
    (source / "file").write_text("content")
    mount(source, target, flags=MS_BIND)
    mount(source, other, flags=MS_BIND)
    yield target
    umount2(other, UMOUNT_NOFOLLOW)
    umount2(target, UMOUNT_NOFOLLOW)


def holders(target: Path) -> list[Holder]:
    """Find the holders of what is mounted at a path."""
    found = statx(target)
    return holders_of(found.mnt_id, found.dev, patience_s=60)


def test_a_mount_that_nobody_holds_has_no_holder(target: Path) -> None:
    assert holders(target) == []


@pytest.mark.parametrize("how", PROGRAMS)
def test_a_process_is_found_however_it_holds_the_mount(target: Path, how: str) -> None:
    with process(PROGRAMS[how], target) as pid:
        with pytest.raises(OSError, match="busy"):
            umount2(target, UMOUNT_NOFOLLOW)
        found = holders(target)
        assert [(holder.pid, holder.how) for holder in found] == [(pid, how)]
        assert found[0].name.startswith("python")
        assert f"process {pid} (python" in describe(found)
        assert holders(target.parent / "other") == []


def test_an_open_directory_is_found(target: Path) -> None:
    """psutil.Process.open_files knows nothing of directories."""
    with process("held = os.open(path, os.O_RDONLY)", target) as pid:
        assert [(holder.pid, holder.how) for holder in holders(target)] == [(pid, "open file")]


def test_our_own_process_is_found_too(target: Path) -> None:
    with (target / "file").open():
        assert [holder.pid for holder in holders(target)] == [os.getpid()]


def test_a_mount_inside_is_found(target: Path) -> None:
    (target / "inside").mkdir()
    mount(target.parent / "source", target / "inside", flags=MS_BIND)
    try:
        assert holders(target) == [Holder(0, str(target / "inside"), "mount")]
    finally:
        umount2(target / "inside", UMOUNT_NOFOLLOW)


def test_a_process_in_another_mount_namespace_is_found_where_none_is_here(target: Path) -> None:
    """There the same directory is another mount; an unmount that propagates is busy with it."""
    with process("os.chdir(path)", target, "unshare", "--mount", "--propagation", "private") as pid:
        assert [(holder.pid, holder.how) for holder in holders(target)] == [(pid, "cwd")]
        with (target / "file").open():
            assert [holder.pid for holder in holders(target)] == [os.getpid()]


def test_only_some_of_many_are_named(target: Path) -> None:
    with process("os.chdir(path)", target), process("os.chdir(path)", target):
        found = statx(target)
        assert len(holders_of(found.mnt_id, found.dev, limit=1, patience_s=60)) == 1
