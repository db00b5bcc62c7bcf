"""FS_IOC_FSGETXATTR and FS_IOC_FSSETXATTR (linux/fs.h): the project that a file belongs to, above all."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from provisioner.linux.ioctl import ioctl, ior, iow

_FSXATTR = struct.Struct("=IIIII8x")  # struct fsxattr: xflags, extsize, nextents, projid, cowextsize

FS_IOC_FSGETXATTR = ior("X", 31, _FSXATTR.size)
FS_IOC_FSSETXATTR = iow("X", 32, _FSXATTR.size)

FS_XFLAG_PROJINHERIT = 0x200  # of a directory: what is made in it gets its project


@dataclass(frozen=True, slots=True)
class Fsxattr:
    """What the two requests exchange. projid: 0 means none."""

    xflags: int
    extsize: int
    nextents: int
    projid: int
    cowextsize: int


def get_fsxattr(fd: int) -> Fsxattr:
    """Read the attributes of an open file or directory (no O_PATH); ENOTTY where the filesystem has none."""
    return Fsxattr(*_FSXATTR.unpack(ioctl(fd, FS_IOC_FSGETXATTR, bytes(_FSXATTR.size))))


def set_fsxattr(fd: int, wanted: Fsxattr) -> None:
    """Write them; read before, for all are set. EOPNOTSUPP where an ext4 has no feature `project`."""
    packed = _FSXATTR.pack(wanted.xflags, wanted.extsize, wanted.nextents, wanted.projid, wanted.cowextsize)
    ioctl(fd, FS_IOC_FSSETXATTR, packed)
