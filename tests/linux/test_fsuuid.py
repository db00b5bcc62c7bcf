"""FS_IOC_GETFSUUID: the same answer as blkid's, or none."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from provisioner.linux.fsuuid import FS_IOC_GETFSUUID, _text, filesystem_uuid
from tests.support.filesystems import Filesystem, make_image, mounted, tmpfs


def _ask(path: Path) -> str | None:
    fd = os.open(path, os.O_RDONLY)
    try:
        return filesystem_uuid(fd)
    finally:
        os.close(fd)


def test_the_request_number_is_the_kernels() -> None:
    assert FS_IOC_GETFSUUID == 0x80111500


def test_it_is_what_blkid_says(filesystem: Filesystem) -> None:
    command = ["blkid", "-p", "-s", "UUID", "-o", "value", str(filesystem.image)]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    without = {"btrfs"}  # up to Linux 6.18 at least
    assert _ask(filesystem.path) == (None if filesystem.kind in without else listed)


def test_a_folder_answers_as_its_filesystem_does(filesystem: Filesystem, folder: Path) -> None:
    assert _ask(folder) == _ask(filesystem.path)


def test_it_stays_over_a_remount(tmp_path: Path) -> None:
    make_image("ext4", tmp_path / "image")
    seen = []
    for _ in range(2):
        with mounted("ext4", tmp_path / "image", tmp_path / "mnt") as found:
            seen.append(_ask(found.path))
    assert seen[0] is not None
    assert seen[0] == seen[1]


def test_a_nil_uuid_is_none(tmp_path: Path) -> None:
    make_image("ext4", tmp_path / "image", 0, "-U", "clear")
    with mounted("ext4", tmp_path / "image", tmp_path / "mnt") as found:
        assert _ask(found.path) is None


def test_a_filesystem_without_the_ioctl_has_none() -> None:
    assert _ask(Path("/proc")) is None


def test_memory_gets_another_at_every_mount(tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        with tmpfs(tmp_path / "memory") as path:
            seen.append(_ask(path))
    assert seen[0] != seen[1]


def test_a_descriptor_that_cannot_be_asked_is_an_error() -> None:
    fd = os.open("/", os.O_PATH)
    try:
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            filesystem_uuid(fd)
        assert caught.value.errno == errno.EBADF
    finally:
        os.close(fd)


def test_a_shorter_id_is_given_as_it_is() -> None:
    assert _text(b"\x04\x12\x34\xab\xcd" + bytes(12)) == "1234abcd"
    assert _text(b"\x04" + bytes(16)) is None
