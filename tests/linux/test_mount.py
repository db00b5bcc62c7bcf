"""open_tree, mount_setattr, move_mount, mount and umount2, seen through the mounts that they make."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from provisioner.linux import mount as module
from provisioner.linux.at import AT_EMPTY_PATH, AT_RECURSIVE
from provisioner.linux.mount import (
    MNT_DETACH,
    MOUNT_ATTR__ATIME,
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
    MOVE_MOUNT_F_EMPTY_PATH,
    MOVE_MOUNT_T_EMPTY_PATH,
    MOVE_MOUNT_T_SYMLINKS,
    MS_BIND,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REMOUNT,
    MS_SHARED,
    OPEN_TREE_CLONE,
    UMOUNT_NOFOLLOW,
    mount,
    mount_setattr,
    move_mount,
    open_tree,
    umount2,
)
from provisioner.linux.mountinfo import MountInfo, read_mountinfo
from provisioner.linux.statx import statx


@pytest.fixture
def source(folder: Path) -> Path:
    """Give a folder with a file, on each kind of filesystem."""
    return _make_source(folder)


@pytest.fixture
def memory_source(memory: Path) -> Path:
    """Give a folder with a file in memory."""
    return _make_source(memory)


def _make_source(folder: Path) -> Path:
    (folder / "source").mkdir()
    (folder / "target").mkdir()
    (folder / "source" / "file").write_text("text")
    return folder / "source"


def _bind(source: Path, target: Path, attr_set: int = 0, attr_clr: int = 0) -> None:
    """Bind as a publish does: attributes first, then in sight."""
    tree_fd = open_tree(source, flags=OPEN_TREE_CLONE)
    try:
        mount_setattr(tree_fd, "", flags=AT_EMPTY_PATH, attr_set=attr_set, attr_clr=attr_clr)
        move_mount("", target, from_dir_fd=tree_fd, flags=MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(tree_fd)


def _mounted_at(path: Path) -> list[MountInfo]:
    return [found for found in read_mountinfo() if found.mount_point == str(path)]


def test_numbers_and_structure_are_the_kernels() -> None:
    assert (module._NR_OPEN_TREE, module._NR_MOVE_MOUNT, module._NR_MOUNT_SETATTR) == (428, 429, 442)
    assert module._MOUNT_ATTR.size == 32
    assert (module.MS_BIND, module.MS_REC, module.MS_REMOUNT, module.MS_RDONLY) == (4096, 16384, 32, 1)
    assert (module.MS_PRIVATE, module.MS_SLAVE, module.MS_SHARED) == (1 << 18, 1 << 19, 1 << 20)
    assert (MNT_DETACH, UMOUNT_NOFOLLOW) == (2, 8)
    assert (AT_RECURSIVE, AT_EMPTY_PATH) == (0x8000, 0x1000)


def test_a_read_only_bind_is_read_only(source: Path) -> None:
    target = source.parent / "target"
    _bind(source, target, MOUNT_ATTR_RDONLY)
    assert (target / "file").read_text() == "text"
    with pytest.raises(OSError, match="Read-only") as caught:
        (target / "new").touch()
    assert caught.value.errno == errno.EROFS
    (source / "new").touch()
    (mounted,) = _mounted_at(target)
    assert mounted.options[0] == "ro"
    assert mounted.super_options[0] == "rw"


def test_a_read_only_bind_is_never_writable(memory_source: Path) -> None:
    """A writer that keeps trying writes below the mount, before it is there, and never through it."""
    target = memory_source.parent / "target"
    mounted = threading.Event()

    def write() -> None:
        tries_after = 0
        while tries_after < 100:
            tries_after += mounted.is_set()
            with suppress(OSError):
                os.close(os.open(target / "leak", os.O_CREAT | os.O_WRONLY))

    for _ in range(20):
        mounted.clear()
        writer = threading.Thread(target=write)
        writer.start()
        _bind(memory_source, target, MOUNT_ATTR_RDONLY)
        mounted.set()
        writer.join()
        umount2(target)
    assert not (memory_source / "leak").exists()


@pytest.mark.parametrize(
    ("attr_set", "attr_clr", "option"),
    [
        (MOUNT_ATTR_NOSUID, 0, "nosuid"),
        (MOUNT_ATTR_NODEV, 0, "nodev"),
        (MOUNT_ATTR_NOEXEC, 0, "noexec"),
        (MOUNT_ATTR_NOSYMFOLLOW, 0, "nosymfollow"),
        (MOUNT_ATTR_NODIRATIME, 0, "nodiratime"),
        (MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME, "noatime"),
    ],
)
def test_attributes_are_set_and_cleared(memory_source: Path, attr_set: int, attr_clr: int, option: str) -> None:
    target = memory_source.parent / "target"
    _bind(memory_source, target, attr_set, attr_clr)
    assert option in _mounted_at(target)[0].options
    clear = attr_set | attr_clr
    mount_setattr(-1, target, flags=0, attr_clr=clear)
    assert option not in _mounted_at(target)[0].options


def test_strictatime_shows_as_no_option(memory_source: Path) -> None:
    target = memory_source.parent / "target"
    _bind(memory_source, target, MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME)
    assert _mounted_at(target)[0].options == ("rw",)


def test_an_access_time_rule_needs_the_old_one_cleared(memory_source: Path) -> None:
    target = memory_source.parent / "target"
    with pytest.raises(OSError, match="Invalid argument"):
        _bind(memory_source, target, MOUNT_ATTR_NOATIME)
    assert not _mounted_at(target)


def test_only_the_root_of_a_mount_has_attributes(memory_source: Path) -> None:
    with pytest.raises(OSError, match="Invalid argument") as caught:
        mount_setattr(-1, memory_source, flags=0, attr_set=MOUNT_ATTR_RDONLY)
    assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, str(memory_source))


def test_propagation_is_set(memory: Path) -> None:
    def optional() -> str:
        line = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(memory) in line)
        return line.split(" - ")[0].split(" ", 6)[-1]

    mount_setattr(-1, memory, flags=0, propagation=MS_SHARED)
    assert "shared:" in optional()
    mount_setattr(-1, memory, flags=0, propagation=MS_PRIVATE)
    assert "shared:" not in optional()


def test_a_tree_that_is_not_attached_vanishes_with_its_descriptor(memory_source: Path) -> None:
    before = len(list(read_mountinfo()))
    inner = memory_source / "inner"
    inner.mkdir()
    mount("tmpfs", inner, "tmpfs")
    tree_fd = open_tree(inner, flags=OPEN_TREE_CLONE)
    assert len(list(read_mountinfo())) == before + 1, "a clone is in no table"
    (inner / "seen").touch()
    assert os.listdir(f"/proc/self/fd/{tree_fd}") == ["seen"]
    assert not os.get_inheritable(tree_fd)
    os.close(tree_fd)
    umount2(inner)


@pytest.mark.parametrize(("flags", "entries"), [(0, []), (AT_RECURSIVE, ["deep"])])
def test_mounts_below_come_along_where_asked(memory_source: Path, flags: int, entries: list[str]) -> None:
    (memory_source / "inner").mkdir()
    mount("tmpfs", memory_source / "inner", "tmpfs")
    (memory_source / "inner" / "deep").touch()
    tree_fd = open_tree(memory_source, flags=OPEN_TREE_CLONE | flags)
    assert os.listdir(f"/proc/self/fd/{tree_fd}/inner") == entries
    os.close(tree_fd)


def test_both_ends_may_be_descriptors(memory_source: Path) -> None:
    """A target that was checked once and is then held cannot be swapped."""
    target = memory_source.parent / "target"
    target_fd = os.open(target, os.O_PATH)
    tree_fd = open_tree("source", dir_fd=(parent := os.open(memory_source.parent, os.O_PATH)), flags=OPEN_TREE_CLONE)
    target.rename(target.with_name("renamed"))
    target.mkdir()
    move_mount(
        "", "", from_dir_fd=tree_fd, to_dir_fd=target_fd, flags=MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    )
    assert not statx(target).mount_root
    assert statx(target.with_name("renamed")).mount_root
    for fd in (target_fd, tree_fd, parent):
        os.close(fd)


def test_a_target_that_is_a_symlink_is_followed_only_where_asked(memory_source: Path) -> None:
    target = memory_source.parent / "target"
    link = memory_source.parent / "link"
    os.symlink(target, link)
    tree_fd = open_tree(memory_source, flags=OPEN_TREE_CLONE)
    try:
        with pytest.raises(OSError, match="Invalid argument"):
            move_mount("", link, from_dir_fd=tree_fd, flags=MOVE_MOUNT_F_EMPTY_PATH)
        assert not statx(target).mount_root
        move_mount("", link, from_dir_fd=tree_fd, flags=MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS)
        assert statx(target).mount_root
    finally:
        os.close(tree_fd)


def test_a_missing_path_is_named(memory_source: Path) -> None:
    missing = memory_source / "missing"
    tree_fd = open_tree(memory_source, flags=OPEN_TREE_CLONE)
    with pytest.raises(FileNotFoundError) as moved:
        move_mount("", missing, from_dir_fd=tree_fd, flags=MOVE_MOUNT_F_EMPTY_PATH)
    os.close(tree_fd)
    assert (moved.value.filename, moved.value.filename2) == (tree_fd, str(missing))
    for call in (open_tree, umount2, lambda path: mount(None, path, "tmpfs")):
        with pytest.raises(FileNotFoundError) as caught:
            call(missing)
        assert caught.value.filename == str(missing)


def test_mount_makes_a_filesystem_with_its_options(memory: Path) -> None:
    (memory / "small").mkdir()
    mount("some name", memory / "small", "tmpfs", flags=MS_RDONLY, data="size=64k,mode=0700")
    (found,) = _mounted_at(memory / "small")
    assert (found.fs_type, found.source, found.options[0]) == ("tmpfs", "some name", "ro")
    assert "size=64k" in found.super_options


def test_mount_in_two_steps_binds_read_only(memory_source: Path) -> None:
    target = memory_source.parent / "target"
    mount(memory_source, target, flags=MS_BIND)
    assert _mounted_at(target)[0].options[0] == "rw"
    mount(None, target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)
    assert _mounted_at(target)[0].options[0] == "ro"


def test_an_unknown_filesystem_is_refused(memory: Path) -> None:
    with pytest.raises(OSError, match="No such device") as caught:
        mount("x", memory, "no-such-filesystem")
    assert (caught.value.errno, caught.value.filename2) == (errno.ENODEV, str(memory))


def test_stacked_mounts_are_undone_one_by_one(memory_source: Path) -> None:
    target = memory_source.parent / "target"
    for left in (1, 2, 3):
        _bind(memory_source, target)
        assert len(_mounted_at(target)) == left
    for left in (2, 1, 0):
        umount2(target, UMOUNT_NOFOLLOW)
        assert len(_mounted_at(target)) == left
    with pytest.raises(OSError, match="Invalid argument") as caught:
        umount2(target, UMOUNT_NOFOLLOW)
    assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, str(target))


def test_a_symlink_is_not_unmounted_through(memory_source: Path) -> None:
    target = memory_source.parent / "target"
    link = memory_source.parent / "link"
    _bind(memory_source, target)
    os.symlink(target, link)
    with pytest.raises(OSError, match="Invalid argument"):
        umount2(link, UMOUNT_NOFOLLOW)
    assert _mounted_at(target)
    umount2(link)
    assert not _mounted_at(target)


def test_a_mount_in_use_is_busy(memory_source: Path) -> None:
    target = memory_source.parent / "target"
    _bind(memory_source, target)
    with (target / "file").open() as file:
        with pytest.raises(OSError, match="busy") as caught:
            umount2(target, UMOUNT_NOFOLLOW)
        assert (caught.value.errno, caught.value.filename) == (errno.EBUSY, str(target))
        umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW)
        assert not _mounted_at(target)
        assert file.read() == "text"
