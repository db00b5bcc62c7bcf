"""Requests that every block device answers (linux/fs.h)."""

from __future__ import annotations

import struct

from provisioner.linux.ioctl import io, ioctl, ioctl_number, ior

BLKROGET = io(0x12, 94)
BLKFLSBUF = io(0x12, 97)
BLKSSZGET = io(0x12, 104)
BLKGETSIZE64 = ior(0x12, 114, 8)

_INT = struct.Struct("=i")
_U64 = struct.Struct("=Q")


def is_readonly(fd: int) -> bool:
    """Tell whether a device refuses writes."""
    return bool(_INT.unpack(ioctl(fd, BLKROGET, bytes(_INT.size)))[0])


def logical_block_bytes(fd: int) -> int:
    """Give the unit of direct IO on a device."""
    found: int = _INT.unpack(ioctl(fd, BLKSSZGET, bytes(_INT.size)))[0]
    return found


def size_bytes(fd: int) -> int:
    """Give the size of a device."""
    found: int = _U64.unpack(ioctl(fd, BLKGETSIZE64, bytes(_U64.size)))[0]
    return found


def flush(fd: int) -> None:
    """Write down what a device's cache holds, and forget it."""
    ioctl_number(fd, BLKFLSBUF)
