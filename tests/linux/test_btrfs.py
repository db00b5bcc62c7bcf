"""btrfs's subvolumes and quota groups, on a filesystem of the test's own."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner.linux import btrfs
from tests.support.filesystems import loop_filesystem
from tests.support.limited import MIB, write_as_pod


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    with loop_filesystem("btrfs", tmp_path, 256 * MIB, options="commit=1") as found:
        yield found.path


@pytest.fixture
def fd(root: Path) -> Iterator[int]:
    fd = os.open(root, os.O_RDONLY)
    yield fd
    os.close(fd)


def _sub(fd: int, name: str) -> int:
    btrfs.create_subvolume(fd, name)
    sub_fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
    try:
        return btrfs.subvolume_id_of(sub_fd)
    finally:
        os.close(sub_fd)


def test_a_subvolume_is_made_found_and_destroyed(fd: int) -> None:
    number = _sub(fd, "one")
    assert os.stat("one", dir_fd=fd).st_ino == btrfs.BTRFS_FIRST_FREE_OBJECTID
    assert number >= btrfs.BTRFS_FIRST_FREE_OBJECTID
    assert btrfs.subvolume_exists(fd, number)
    btrfs.destroy_subvolume(fd, "one")
    assert os.listdir(fd) == []


def test_one_that_is_read_only_is_opened_by_its_id_and_made_writable(fd: int, root: Path) -> None:
    number = _sub(fd, "one")
    subprocess.run(["btrfs", "property", "set", root / "one", "ro", "true"], check=True)
    with pytest.raises(OSError, match="Read-only"):
        (root / "one" / "file").touch()
    one = btrfs.open_subvolume(fd, number)
    try:
        assert btrfs.subvolume_id_of(one) == number
        for _ in range(2):
            btrfs.make_writable(one)
    finally:
        os.close(one)
    (root / "one" / "file").touch()
    with pytest.raises(OSError, match=r"No such file|Stale"):
        btrfs.open_subvolume(fd, number + 1000)


def test_one_is_destroyed_by_its_id_wherever_it_lies(fd: int, root: Path) -> None:
    (root / "folder").mkdir()
    number = _sub(fd, "outer")
    outer = os.open(root / "outer", os.O_RDONLY)
    os.mkdir("deep", dir_fd=outer)
    deep = os.open("deep", os.O_RDONLY, dir_fd=outer)
    inner = _sub(deep, "inner")
    os.close(deep)
    os.close(outer)
    assert btrfs.nested_subvolumes(fd, number) == [inner]
    with pytest.raises(OSError, match=r"empty") as refused:
        btrfs.destroy_subvolume_by_id(fd, number)
    assert refused.value.errno == errno.ENOTEMPTY
    btrfs.destroy_subvolume_by_id(fd, inner)
    btrfs.destroy_subvolume_by_id(fd, number)
    with pytest.raises(FileNotFoundError):
        btrfs.destroy_subvolume_by_id(fd, number)


def test_an_error_names_the_file_and_a_name_may_not_be_too_long(fd: int, root: Path) -> None:
    with pytest.raises(FileNotFoundError) as refused:
        btrfs.destroy_subvolume(fd, "absent")
    assert refused.value.filename == str(root)
    with pytest.raises(OSError, match=r"too long"):
        btrfs.create_subvolume(fd, "x" * 256)


def test_without_quotas_there_is_no_status_and_no_group(fd: int) -> None:
    assert btrfs.quota_status(fd) == 0
    with pytest.raises(OSError, match=r"not connected") as refused:
        btrfs.qgroup_create(fd, btrfs.qgroup_id(1, 300))
    assert refused.value.errno == errno.ENOTCONN


@pytest.mark.parametrize("command", [btrfs.BTRFS_QUOTA_CTL_ENABLE, btrfs.BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA])
def test_a_limit_on_a_higher_group_binds_what_is_nested_in_it(fd: int, root: Path, command: int) -> None:
    btrfs.quota_ctl(fd, command)
    btrfs.quota_rescan_wait(fd)
    status = btrfs.quota_status(fd)
    assert status & btrfs.BTRFS_QGROUP_STATUS_FLAG_ON
    simple = command == btrfs.BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA
    assert bool(status & btrfs.BTRFS_QGROUP_STATUS_FLAG_SIMPLE_MODE) is simple
    number = _sub(fd, "one")
    group = btrfs.qgroup_id(1, number)
    btrfs.qgroup_create(fd, group)
    btrfs.qgroup_assign(fd, btrfs.qgroup_id(0, number), group)
    assert btrfs.qgroup_members(fd, group) == [number]
    assert btrfs.qgroup_limit_of(fd, group) is None
    btrfs.qgroup_limit(fd, group, 20 * MIB)
    assert btrfs.qgroup_limit_of(fd, group) == 20 * MIB
    os.chown(root / "one", 65534, 65534)
    written = write_as_pod(root / "one" / "file", 40 * MIB)
    assert written.errno == errno.EDQUOT
    assert 18 * MIB <= written.bytes <= 20 * MIB
    os.sync()
    info = btrfs.qgroup_info(fd, group)
    assert info is not None
    assert written.bytes <= info.referenced_bytes <= 21 * MIB
    btrfs.qgroup_limit(fd, group, None)
    assert btrfs.qgroup_limit_of(fd, group) is None


def test_groups_are_listed_whole_even_if_there_are_many(fd: int) -> None:
    btrfs.quota_ctl(fd, btrfs.BTRFS_QUOTA_CTL_ENABLE)
    btrfs.quota_rescan_wait(fd)
    top = btrfs.qgroup_id(2, 1)
    btrfs.qgroup_create(fd, top)
    groups = [btrfs.qgroup_id(1, n) for n in range(1500)]  # more than one answer of the kernel holds
    for group in groups:
        btrfs.qgroup_create(fd, group)
        btrfs.qgroup_assign(fd, group, top)
    assert btrfs.qgroup_members(fd, top) == groups
    with pytest.raises(OSError, match=r"busy"):
        btrfs.qgroup_remove(fd, top)
    with pytest.raises(FileNotFoundError):
        btrfs.qgroup_remove(fd, btrfs.qgroup_id(1, 5000))
    assert btrfs.qgroup_info(fd, btrfs.qgroup_id(1, 5000)) is None


def test_a_subvolume_is_a_directory_with_the_mode_of_mkdir(fd: int) -> None:
    _sub(fd, "one")
    assert stat.S_IMODE(os.stat("one", dir_fd=fd).st_mode) == 0o755
