"""Erasing on real filesystems: mounts inside, flags that forbid it, depth, full disks, nested subvolumes."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from provisioner.erasing import MOST_OBSTACLES, Obstacle, erase
from provisioner.linux.mount import MS_BIND, MS_RDONLY, MS_REMOUNT, UMOUNT_NOFOLLOW, mount, umount2
from provisioner.linux.statx import statx
from provisioner.pace import Paced
from tests.support.filesystems import Filesystem, tmpfs
from tests.support.paces import FdCounting, Unpaced, open_fds
from tests.support.projects import move_to_project
from tests.support.trees import directory_fd, make_deep, make_wide


def erased(path: Path, pace: Paced | None = None) -> list[Obstacle]:
    """Erase a directory by its path."""
    with directory_fd(path) as fd:
        return erase(fd, pace or Unpaced())


@contextmanager
def bound(source: Path, target: Path) -> Iterator[None]:
    """Bind a file or directory to another."""
    mount(source, target, flags=MS_BIND)
    try:
        yield
    finally:
        umount2(_now_at(target), UMOUNT_NOFOLLOW)


def _now_at(target: Path) -> Path:
    """Find a mount point again that was moved with the directory around it."""
    if target.exists() and statx(target).mount_root:
        return target
    top = next(parent for parent in target.parents if parent.name == "top")
    return next(path for path in top.rglob(target.name) if statx(path).mount_root)


FS_IOC_GETFLAGS, FS_IOC_SETFLAGS = 0x80086601, 0x40086602  # linux/fs.h; both take an int
FLAGS = {"immutable": 0x10, "append-only": 0x20}


def set_flag(fd: int, flag: str, *, on: bool) -> None:
    """Do what chattr(1) does, by descriptor: a file may have been moved."""
    (found,) = struct.unpack("i", fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(4)))
    wanted = found | FLAGS[flag] if on else found & ~FLAGS[flag]
    fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("i", wanted))


@contextmanager
def flagged(path: Path, flag: str) -> Iterator[None]:
    """Set a flag, and take it off wherever the file is by then."""
    fd = os.open(path, os.O_RDONLY)
    try:
        set_flag(fd, flag, on=True)
        yield
        set_flag(fd, flag, on=False)
    finally:
        os.close(fd)


@pytest.fixture
def top(folder: Path) -> Path:
    """Give the directory to erase, on each kind of filesystem."""
    path = folder / "top"
    path.mkdir()
    return path


@pytest.fixture
def outside(folder: Path) -> Path:
    """Give a directory of the same filesystem that must not be touched."""
    path = folder / "outside"
    (path / "deep" / "deeper").mkdir(parents=True)
    (path / "precious").write_text("precious")
    (path / "deep" / "deeper" / "precious").write_text("precious")
    return path


def intact(outside: Path) -> bool:
    return (
        sorted(os.listdir(outside)) == ["deep", "precious"]
        and (outside / "precious").read_text() == "precious"
        and (outside / "deep" / "deeper" / "precious").read_text() == "precious"
    )


@pytest.mark.parametrize("place", ["mnt", "a/mnt", "a/b/c/mnt"])
def test_a_bind_mount_of_the_same_filesystem_is_left_alone(top: Path, outside: Path, place: str) -> None:
    """It has the st_dev of its surroundings: comparing devices would walk into it."""
    target = top / place
    target.mkdir(parents=True)
    (target / "hidden").touch()
    make_wide(top, 5)
    make_wide(target.parent, 0)
    with bound(outside, target):
        assert target.stat().st_dev == top.stat().st_dev
        found = erased(top)
        assert intact(outside)
        assert [obstacle.errno for obstacle in found] == [errno.EBUSY]
        assert found[0].path.split("/")[-1] == "mnt"
        assert "mounted" in found[0].message
        assert statx(top / found[0].path).mount_root
        assert sum(1 for path in top.rglob("*") if path.is_file()) == 2  # those of `outside`, seen through the mount
    assert erased(top) == []
    assert os.listdir(top) == []
    assert intact(outside)


def test_a_bind_mount_on_a_file_is_left_alone(top: Path, outside: Path) -> None:
    (top / "a").mkdir()
    (top / "a" / "mnt").touch()
    with bound(outside / "precious", top / "a" / "mnt"):
        found = erased(top)
        assert [(obstacle.path, obstacle.errno) for obstacle in found] == [("a/mnt", errno.EBUSY)]
        assert intact(outside)
    assert erased(top) == []


def test_another_filesystem_is_left_alone(top: Path) -> None:
    (top / "mnt").mkdir()
    with tmpfs(top / "mnt") as memory:
        (memory / "precious").touch()
        assert [obstacle.errno for obstacle in erased(top)] == [errno.EBUSY]
        assert (memory / "precious").exists()


def test_a_mount_below_a_directory_that_is_moved_up_stays_where_it_was_in_it(top: Path, outside: Path) -> None:
    make_deep(top, 30, "d")
    target = top.joinpath(*["d"] * 20, "mnt")
    target.mkdir()
    with bound(outside, target):
        found = erased(top)
        assert intact(outside)
        assert [obstacle.errno for obstacle in found] == [errno.EBUSY]
        assert len([path for path in top.rglob("*") if path.is_dir()]) == 4  # its directory, itself, and what it shows
    assert erased(top) == []


def test_a_mount_that_appears_meanwhile_is_left_alone(top: Path, outside: Path) -> None:
    """At every moment: before a directory is looked at, while it is, and after."""
    for moment in range(1, 16):
        make_deep(top, 3, "d")
        target = top / "d"
        mounted: list[Path] = []

        def appear(steps: int, moment: int = moment, target: Path = target, mounted: list[Path] = mounted) -> None:
            if steps == moment and target.exists():
                mount(outside, target, flags=MS_BIND)
                mounted.append(target)

        found = erased(top, Unpaced(appear))
        assert intact(outside)
        if mounted:
            assert [obstacle.errno for obstacle in found] == [errno.EBUSY]
            umount2(target, UMOUNT_NOFOLLOW)
        assert erased(top) == []


def test_what_is_mounted_over_a_name_in_another_view_of_the_tree_is_left_alone(top: Path, outside: Path) -> None:
    """A pod's bind of the volume has a mount inside that the pool's own mount does not show."""
    (top / "mnt").mkdir()
    (top / "mnt" / "ours").touch()
    view = top.parent / "view"
    view.mkdir()
    with bound(top, view), bound(outside, view / "mnt"):
        found = erased(top)
        assert [(obstacle.path, obstacle.errno) for obstacle in found] == [("mnt", errno.EBUSY)]
        assert intact(outside)
    assert erased(top) == []
    assert os.listdir(top) == []


@pytest.mark.parametrize("flag", FLAGS)
def test_a_file_with_a_flag_is_reported_and_its_siblings_go(top: Path, flag: str) -> None:
    (top / "a" / "b").mkdir(parents=True)
    make_wide(top / "a" / "b", 50)
    stubborn = top / "a" / "b" / "stubborn"
    stubborn.touch()
    pace = Unpaced()
    with flagged(stubborn, flag):
        found = erased(top, pace)
        assert [obstacle.errno for obstacle in found] == [errno.EPERM]
        assert flag in found[0].message
        assert found[0].path.endswith("/stubborn")
        assert (top / found[0].path).exists()
        assert sum(1 for path in top.rglob("*") if path.is_file()) == 1
        assert pace.steps < 70  # one try a pass, and two passes: no retry in a loop
    assert erased(top) == []
    assert os.listdir(top) == []


@pytest.mark.parametrize("flag", FLAGS)
def test_a_directory_with_a_flag_is_reported_and_its_siblings_go(top: Path, flag: str) -> None:
    make_deep(top, 2, "stubborn")
    make_deep(top, 2, "sibling")
    with flagged(top / "stubborn", flag):
        found = erased(top)
        assert {obstacle.errno for obstacle in found} == {errno.EPERM}
        assert all(flag in obstacle.message for obstacle in found)
        assert os.listdir(top) == ["stubborn"]
    assert erased(top) == []


def test_many_obstacles_are_not_all_told(top: Path) -> None:
    make_wide(top, 2 * MOST_OBSTACLES)
    pace = Unpaced()
    with ExitStack() as stack:
        for path in top.iterdir():
            stack.enter_context(flagged(path, "immutable"))
        assert len(erased(top, pace)) == MOST_OBSTACLES
        assert pace.steps == 2 * MOST_OBSTACLES
    assert erased(top) == []


def test_three_thousand_nested_directories_go_with_a_handful_of_descriptors(top: Path) -> None:
    make_deep(top, 3000)
    before, pace = open_fds(), FdCounting(every=50)
    assert erased(top, pace) == []
    assert os.listdir(top) == []
    assert pace.most <= 6
    assert open_fds() == before


def test_a_sparse_file_goes_at_once(top: Path) -> None:
    with (top / "sparse").open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(b"x")
    pace = Unpaced()
    assert erased(top, pace) == []
    assert pace.steps == 1


def test_a_full_disk_is_emptied(filesystem: Filesystem, top: Path) -> None:
    """Moving directories up takes room in the directory above."""
    for number in range(40):
        make_deep(top, 10, f"{number}-".ljust(200, "x"))
    (top / "rest").touch()  # a full XFS has no room for one more inode
    _fill(top / "big")
    _fill(top / "rest", 4096)
    free = os.statvfs(top)
    assert free.f_bavail * free.f_frsize < 4 << 20, filesystem.kind
    assert erased(top) == []
    assert os.listdir(top) == []


def _fill(path: Path, unit: int = 1 << 20) -> None:
    """Take all room that is left, by ever smaller pieces."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        size, piece = 0, 1 << 30
        while piece >= unit:
            try:
                os.posix_fallocate(fd, size, piece)
                size += piece
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                piece //= 2
    finally:
        os.close(fd)


def test_directories_of_many_projects_go_too(filesystems: dict[str, Filesystem]) -> None:
    """Nothing is moved into one that hands its own project on, and a tenant needs no privilege to make such ones."""
    top = Path(tempfile.mkdtemp(dir=filesystems["xfs"].path))
    folder = top
    for project_id in range(4711, 4721):
        move_to_project(folder, project_id, inherit=True)
        folder /= "folder"
        folder.mkdir()
        (folder / "file").touch()
    assert erased(top) == []
    assert list(top.iterdir()) == []
    top.rmdir()


def test_nested_btrfs_subvolumes_go_too(filesystems: dict[str, Filesystem]) -> None:
    """Renames do not lead out of a subvolume, and a tenant needs no privilege to make one."""
    top = Path(tempfile.mkdtemp(dir=filesystems["btrfs"].path))
    place = top
    for name in ("a", "b", "c", "d"):
        make_deep(place, 5, "plain")
        place /= name
        subprocess.run(["btrfs", "-q", "subvolume", "create", place], check=True)
        (place / "folder" / "below").mkdir(parents=True)
        make_wide(place / "folder" / "below", 3)
    make_deep(place, 100, "deep")
    before, pace = open_fds(), FdCounting()
    assert erased(top, pace) == []
    assert os.listdir(top) == []
    assert pace.most <= 9
    assert open_fds() == before


def test_btrfs_subvolumes_that_are_read_only_go_too_and_others_stay_so(filesystems: dict[str, Filesystem]) -> None:
    """Their owner needs no privilege for that either; it keeps whatever lies in them, and themselves where they are."""
    top = Path(tempfile.mkdtemp(dir=filesystems["btrfs"].path))
    inside, outside = top / "inside", top / "outside"
    inside.mkdir()
    place = inside
    for name in ("a", "b", "c"):
        place /= name
        _btrfs("create", place)
        make_wide(place, 3)
        make_deep(place, 5, "deep")
        place /= "plain"
        place.mkdir()
    _btrfs("snapshot", "-r", inside / "a", inside / "copy")
    _btrfs("snapshot", "-r", inside / "a", outside)
    (inside / "link").symlink_to(outside)
    (inside / "mnt").mkdir()
    for nested in (inside / "a/plain/b/plain/c", inside / "a/plain/b", inside / "a"):
        subprocess.run(["btrfs", "property", "set", nested, "ro", "true"], check=True)
    before = open_fds()
    with bound(outside, inside / "mnt"):
        assert [obstacle.errno for obstacle in erased(inside)] == [errno.EBUSY]
    assert erased(inside) == []
    assert os.listdir(inside) == []
    assert open_fds() == before
    with pytest.raises(OSError, match="Read-only"):
        (outside / "more").touch()


def test_a_filesystem_that_is_read_only_is_told_of(top: Path) -> None:
    (top / "file").touch()
    with bound(top, top):
        mount(None, top, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)
        assert [obstacle.errno for obstacle in erased(top)] == [errno.EROFS]
    assert (top / "file").exists()


def _btrfs(*arguments: str | Path) -> None:
    subprocess.run(["btrfs", "-q", "subvolume", *arguments], check=True)
