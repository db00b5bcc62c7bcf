"""renameat2(2) with RENAME_NOREPLACE: the commit of a volume must never swallow what is there."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner.linux.renameat2 import RENAME_NOREPLACE, rename_noreplace
from provisioner.linux.statx import AT_FDCWD
from tests.support.filesystems import tmpfs


@pytest.fixture
def folder_fd(folder: Path) -> Iterator[int]:
    """Hold the folder open."""
    fd = os.open(folder, os.O_PATH)
    yield fd
    os.close(fd)


def _make(path: Path, kind: str) -> None:
    if kind == "directory":
        path.mkdir()
    elif kind == "symlink":
        os.symlink("nowhere", path)
    else:
        path.touch()


def test_the_flag_is_the_kernels() -> None:
    assert RENAME_NOREPLACE == 1


@pytest.mark.parametrize("kind", ["directory", "file", "symlink"])
def test_it_renames(folder: Path, folder_fd: int, kind: str) -> None:
    (folder / "other").mkdir()
    _make(folder / "old", kind)
    ino = os.lstat(folder / "old").st_ino
    rename_noreplace("old", "other/new", src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
    assert os.listdir(folder) == ["other"]
    assert os.lstat(folder / "other" / "new").st_ino == ino


def test_a_plain_rename_would_replace_an_empty_directory(folder: Path) -> None:
    """Why there is this wrapper."""
    _make(folder / "old", "directory")
    _make(folder / "new", "directory")
    os.rename(folder / "old", folder / "new")
    assert os.listdir(folder) == ["new"]


@pytest.mark.parametrize("there", ["directory", "file", "symlink"])
@pytest.mark.parametrize("kind", ["directory", "file"])
def test_nothing_is_replaced(folder: Path, folder_fd: int, kind: str, there: str) -> None:
    _make(folder / "old", kind)
    _make(folder / "new", there)
    before = {name: os.lstat(folder / name).st_ino for name in ("old", "new")}
    with pytest.raises(FileExistsError) as caught:
        rename_noreplace("old", "new", src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
    assert (caught.value.filename, caught.value.filename2) == ("old", "new")
    assert {name: os.lstat(folder / name).st_ino for name in ("old", "new")} == before


def test_what_is_missing_is_named(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"'.*/old' -> '.*/new'"):
        rename_noreplace(folder / "old", folder / "new", src_dir_fd=AT_FDCWD, dst_dir_fd=AT_FDCWD)


def test_another_filesystem_is_another_device(folder: Path, folder_fd: int) -> None:
    _make(folder / "old", "file")
    with tmpfs(folder / "memory"), pytest.raises(OSError, match="cross-device") as caught:
        rename_noreplace("old", "memory/new", src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
    assert caught.value.errno == errno.EXDEV
