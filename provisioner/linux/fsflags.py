"""FS_IOC_GETFLAGS and FS_IOC_SETFLAGS (ioctl_iflags(2)): the flags that chattr(1) sets."""

from __future__ import annotations

import struct

from provisioner.linux.ioctl import ioctl, ior, iow

_INT = struct.Struct("=i4x")  # the numbers say long, the kernel takes int

FS_IOC_GETFLAGS = ior("f", 1, 8)
FS_IOC_SETFLAGS = iow("f", 2, 8)

FS_IMMUTABLE_FL = 0x10
FS_NOATIME_FL = 0x80  # reads are not noted
FS_NOCOW_FL = 0x800000  # btrfs: overwrite in place; to be set while the file is empty


def get_flags(fd: int) -> int:
    """Read the flags of an open file; ENOTTY where its filesystem has none."""
    found: int = _INT.unpack(ioctl(fd, FS_IOC_GETFLAGS, bytes(_INT.size)))[0]
    return found


def set_flags(fd: int, flags: int) -> None:
    """Write them all."""
    ioctl(fd, FS_IOC_SETFLAGS, _INT.pack(flags))
