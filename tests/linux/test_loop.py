"""Loop devices, fallocate and the questions to block devices, with a file of the test's own."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner.linux import blkdev, loop
from provisioner.linux.fallocate import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, fallocate
from tests.support.filesystems import MIB


@pytest.fixture
def backing(folder: Path) -> Iterator[int]:
    fd = os.open(folder / "disk.img", os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, 4 * MIB)
    yield fd
    os.close(fd)
    os.unlink(folder / "disk.img")


def _attach(backing: int, flags: int) -> int:
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        while True:
            fd = os.open(loop.device_path(loop.get_free(control)), os.O_RDWR | os.O_CLOEXEC)
            try:
                loop.configure(fd, backing, block_bytes=4096, flags=flags, name="test")
            except OSError as error:
                os.close(fd)
                if error.errno != errno.EBUSY:
                    raise
            else:
                return fd
    finally:
        os.close(control)


def test_a_file_becomes_a_device_that_goes_with_its_last_user(backing: int) -> None:
    fd = _attach(backing, loop.LO_FLAGS_AUTOCLEAR | loop.LO_FLAGS_DIRECT_IO)
    try:
        status, found = loop.get_status(fd), os.fstat(backing)
        assert status.image == (found.st_dev, found.st_ino)
        assert status.flags & loop.LO_FLAGS_DIRECT_IO
        assert status.flags & loop.LO_FLAGS_AUTOCLEAR
        assert os.fstat(fd).st_rdev == os.makedev(loop.LOOP_MAJOR, status.number)
        assert blkdev.size_bytes(fd) == 4 * MIB
        assert blkdev.logical_block_bytes(fd) == 4096
        assert not blkdev.is_readonly(fd)
    finally:
        os.close(fd)


def test_a_device_grows_with_its_file(backing: int) -> None:
    fd = _attach(backing, loop.LO_FLAGS_AUTOCLEAR)
    try:
        os.ftruncate(backing, 8 * MIB)
        assert blkdev.size_bytes(fd) == 4 * MIB
        loop.set_capacity(fd)
        assert blkdev.size_bytes(fd) == 8 * MIB
    finally:
        os.close(fd)


def test_a_readonly_device_says_so(backing: int) -> None:
    fd = _attach(backing, loop.LO_FLAGS_AUTOCLEAR | loop.LO_FLAGS_READ_ONLY)
    try:
        assert blkdev.is_readonly(fd)
        with pytest.raises(OSError, match=r"not permitted|Read-only"):
            os.write(fd, bytes(4096))
    finally:
        os.close(fd)


def test_a_device_is_taken_once_and_an_error_names_it(backing: int) -> None:
    fd = _attach(backing, 0)
    number = loop.get_status(fd).number
    try:
        with pytest.raises(OSError, match=r"busy") as refused:
            loop.configure(fd, backing, block_bytes=512, flags=0)
        assert refused.value.filename == loop.device_path(number)
        loop.clear(fd)
    finally:
        os.close(fd)


def test_room_is_taken_and_given_back(backing: int) -> None:
    before = os.fstat(backing).st_blocks
    fallocate(backing, 0, 0, 4 * MIB)
    assert os.fstat(backing).st_blocks * 512 >= 4 * MIB
    fallocate(backing, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4 * MIB)
    assert os.fstat(backing).st_blocks <= before + 16
    assert os.fstat(backing).st_size == 4 * MIB


def test_room_that_is_not_there_is_refused_by_name(backing: int, folder: Path) -> None:
    with pytest.raises(OSError, match=r"space|quota|large") as refused:
        fallocate(backing, 0, 0, 2**40)
    assert refused.value.filename == str(folder / "disk.img")
