"""statx(2) against os.stat, real mounts and real file attributes."""

from __future__ import annotations

import errno
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import pytest

from provisioner.linux import statx as module
from provisioner.linux.mount import MS_BIND, mount
from provisioner.linux.mountinfo import read_mountinfo
from provisioner.linux.statx import (
    AT_EMPTY_PATH,
    AT_SYMLINK_NOFOLLOW,
    STATX_BASIC_STATS,
    STATX_MNT_ID,
    STATX_MNT_ID_UNIQUE,
    Statx,
    glance,
    statx,
)
from tests.support.filesystems import Filesystem


def _same(found: Statx, expected: os.stat_result) -> bool:
    return (
        found.mode,
        found.ino,
        found.dev,
        found.nlink,
        found.uid,
        found.gid,
        found.size_bytes,
        found.blocks,
    ) == (
        expected.st_mode,
        expected.st_ino,
        expected.st_dev,
        expected.st_nlink,
        expected.st_uid,
        expected.st_gid,
        expected.st_size,
        expected.st_blocks,
    )


def test_the_structure_is_the_kernels() -> None:
    assert module._STRUCT.size == 256
    assert (STATX_BASIC_STATS, STATX_MNT_ID, STATX_MNT_ID_UNIQUE) == (0x7FF, 0x1000, 0x4000)
    assert (AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW) == (0x1000, 0x100)


def test_it_agrees_with_os_stat(folder: Path) -> None:
    file = folder / "file"
    file.write_bytes(b"x" * 100_000)
    file.chmod(0o6751)
    os.chown(file, 4_000_000_000, 65_537)
    os.link(file, folder / "second")
    os.symlink("file", folder / "link")
    os.mknod(folder / "fifo", 0o10600)
    os.truncate(folder / "second", 5 << 30)
    os.sync()
    for path in (file, folder, folder / "fifo", folder / "link"):
        assert _same(statx(path), os.stat(path)), path
        assert _same(statx(path, flags=AT_SYMLINK_NOFOLLOW), os.lstat(path)), path


def test_a_path_counts_from_the_directory_fd_and_may_be_empty(memory: Path) -> None:
    (memory / "file").write_bytes(b"12345")
    fd = os.open(memory, os.O_PATH)
    try:
        assert statx("file", dir_fd=fd).size_bytes == 5
        assert _same(statx("", dir_fd=fd, flags=AT_EMPTY_PATH), os.stat(memory))
    finally:
        os.close(fd)


def test_a_mount_root_is_told_from_a_folder_of_the_same_filesystem(folder: Path) -> None:
    for name in ("source", "target"):
        (folder / name).mkdir()
    assert not statx(folder / "target").mount_root
    mount(folder / "source", folder / "target", flags=MS_BIND)
    (folder / "target" / "inner").mkdir()
    source, target = statx(folder / "source"), statx(folder / "target")
    assert (source.dev, source.ino) == (target.dev, target.ino), "st_dev does not show a bind mount"
    assert source.mnt_id != target.mnt_id
    assert target.mount_root
    assert not source.mount_root
    assert not statx(folder / "target" / "inner").mount_root
    assert statx(folder / "target" / "inner").mnt_id == target.mnt_id


def test_a_file_can_be_a_mount_root(memory: Path) -> None:
    (memory / "source").touch()
    (memory / "target").touch()
    mount(memory / "source", memory / "target", flags=MS_BIND)
    assert statx(memory / "target").mount_root


def test_the_mount_id_is_that_of_mountinfo(memory: Path) -> None:
    listed = next(found for found in read_mountinfo() if found.mount_point == str(memory))
    assert statx(memory).mnt_id == listed.mnt_id
    assert statx(memory).dev == listed.dev


def test_the_unique_mount_id_is_given_where_asked(memory: Path) -> None:
    plain = statx(memory)
    unique = statx(memory, mask=STATX_BASIC_STATS | STATX_MNT_ID_UNIQUE)
    assert not plain.mask & STATX_MNT_ID_UNIQUE
    assert unique.mask & STATX_MNT_ID_UNIQUE
    assert unique.mnt_id > 1 << 31
    assert unique.ino == plain.ino


@pytest.mark.parametrize(("flag", "immutable", "append_only"), [("i", True, False), ("a", False, True)])
def test_file_attributes_that_stop_a_delete_are_told(
    folder: Path, *, flag: str, immutable: bool, append_only: bool
) -> None:
    file = folder / "file"
    file.touch()
    before = statx(file)
    assert not before.immutable
    assert not before.append_only
    subprocess.run(["chattr", f"+{flag}", file], check=True)
    found = statx(file)
    subprocess.run(["chattr", f"-{flag}", file], check=True)
    assert (found.immutable, found.append_only) == (immutable, append_only)


def test_a_subvolume_is_no_mount_but_has_another_device(filesystems: dict[str, Filesystem]) -> None:
    """Its st_dev alone would call it another filesystem; the mount id does not."""
    folder = filesystems["btrfs"].path
    subprocess.run(["btrfs", "-q", "subvolume", "create", folder / "sub"], check=True)
    outer, inner = statx(folder), statx(folder / "sub")
    assert inner.dev != outer.dev
    assert inner.mnt_id == outer.mnt_id
    assert not inner.mount_root


@pytest.mark.parametrize("name", [b"caf\xe9", b"\xff" * 255, "ü\n\t ".encode(), b"-rf"])
def test_any_name_works(memory: Path, name: bytes) -> None:
    path = os.fsencode(memory) + b"/" + name
    with open(path, "wb") as file:
        file.write(b"123")
    assert statx(path).size_bytes == 3
    assert statx(os.fsdecode(path)).size_bytes == 3


def test_what_is_missing_is_named(memory: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        statx(memory / "missing")
    assert caught.value.filename == str(memory / "missing")


def test_an_empty_path_is_named_by_its_descriptor() -> None:
    fd = os.open("/", os.O_PATH)
    os.close(fd)
    with pytest.raises(OSError, match=rf"Bad file descriptor: {fd}$") as caught:
        statx("", dir_fd=fd, flags=AT_EMPTY_PATH)
    assert (caught.value.errno, caught.value.filename) == (errno.EBADF, fd)


@pytest.mark.parametrize(
    ("path", "number"),
    [("", errno.ENOENT), ("file/below", errno.ENOTDIR), ("loop", errno.ELOOP), ("n" * 256, errno.ENAMETOOLONG)],
)
def test_errors_are_the_kernels(memory: Path, path: str, number: int) -> None:
    (memory / "file").touch()
    os.symlink("loop", memory / "loop")
    fd = os.open(memory, os.O_PATH)
    try:
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            statx(path, dir_fd=fd)
        assert caught.value.errno == number
    finally:
        os.close(fd)


def test_threads_do_not_see_each_others_answers(memory: Path) -> None:
    def look(thread: int) -> bool:
        own, missing = memory / str(thread), memory / f"missing-{thread}"
        own.write_bytes(b"x" * thread)
        for _ in range(500):
            if statx(own).size_bytes != thread:
                return False
            try:
                statx(missing)
            except FileNotFoundError as error:
                if error.filename != str(missing):
                    return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(look, range(1, 9)))


def test_a_glance_tells_the_same_and_follows_no_symlink(folder: Path) -> None:
    (folder / "file").write_bytes(b"x" * 5000)
    (folder / "link").symlink_to("file")
    for name in ("file", "link", "."):
        assert glance(folder / name) == replace(statx(folder / name, flags=AT_SYMLINK_NOFOLLOW), mask=ANY)
    with pytest.raises(FileNotFoundError):
        glance(folder / "nothing")
