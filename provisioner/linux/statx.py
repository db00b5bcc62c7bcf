"""statx(2): what a file is, which mount it lies on, and whether that mount begins there.

'Is this a mount point?' costs about a microsecond this way, whatever the number of mounts.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from os import makedev

from provisioner.linux.at import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_NO_AUTOMOUNT,
    AT_STATX_DONT_SYNC,
    AT_SYMLINK_NOFOLLOW,
)
from provisioner.linux.close import close_path
from provisioner.linux.libc import AnyPath, function, path_bytes
from provisioner.linux.openat2 import open_path

__all__ = [
    "AT_EMPTY_PATH",
    "AT_FDCWD",
    "AT_NO_AUTOMOUNT",
    "AT_SYMLINK_NOFOLLOW",
    "STATX_ATTR_APPEND",
    "STATX_ATTR_IMMUTABLE",
    "STATX_ATTR_MOUNT_ROOT",
    "STATX_BASIC_STATS",
    "STATX_MNT_ID",
    "STATX_MNT_ID_UNIQUE",
    "Statx",
    "glance",
    "statx",
]

STATX_BASIC_STATS = 0x7FF
STATX_MNT_ID = 0x1000  # the id that /proc/PID/mountinfo shows; reused after an unmount
STATX_MNT_ID_UNIQUE = 0x4000  # never reused, what statmount(2) takes; Linux 6.8

STATX_ATTR_IMMUTABLE = 0x10
STATX_ATTR_APPEND = 0x20
STATX_ATTR_MOUNT_ROOT = 0x2000

# struct statx (linux/stat.h): mask, (blksize), attributes, nlink, uid, gid, mode, ino, size, blocks,
# (attributes_mask, four times), rdev and dev major and minor, mnt_id, and room for what comes.
_STRUCT = struct.Struct("=I4xQIIIH2xQQQ72xIIIIQ104x")
_Buffer = ctypes.c_char * _STRUCT.size
_unpack = _STRUCT.unpack_from

_ARGUMENTS = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)
_statx = function("statx", *_ARGUMENTS, paths=(1,))
_statx_brief = function("statx", *_ARGUMENTS, paths=(1,), brief=True)


@dataclass(slots=True)  # not frozen: that costs more than the system call
class Statx:
    """What statx(2) tells of one file. `blocks` count 512 bytes each, `dev` and `rdev` are as in os.stat.

    `mask` has the STATX_ bits that the kernel filled in: an older one leaves STATX_MNT_ID_UNIQUE out.
    """

    mode: int
    ino: int
    dev: int
    nlink: int
    uid: int
    gid: int
    size_bytes: int
    blocks: int
    mnt_id: int
    mount_root: bool
    immutable: bool
    append_only: bool
    mask: int
    rdev: int = 0


def statx(
    path: AnyPath, *, dir_fd: int = AT_FDCWD, flags: int = 0, mask: int = STATX_BASIC_STATS | STATX_MNT_ID
) -> Statx:
    """Look at a file; with path "" and AT_EMPTY_PATH, at the open file `dir_fd`."""
    return _looked(_statx, dir_fd, path_bytes(path), flags, mask)


def glance(path: AnyPath, *, dir_fd: int = AT_FDCWD) -> Statx:
    """Look at a file, not following a symlink, at the cost of a system call that nobody else notices.

    What the lookup cache has is looked at without giving the GIL away (`open_path`); the figures are those
    that the kernel has in memory, which for a local filesystem are the newest.
    """
    fd = open_path(path, os.O_NOFOLLOW, dir_fd=dir_fd)
    try:
        return _looked(_statx_brief, fd, b"", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS | STATX_MNT_ID)
    finally:
        close_path(fd)


def _looked(call: Callable[..., int], dir_fd: int, path: bytes, flags: int, mask: int) -> Statx:
    # A buffer for each call is cheaper than a thread's own, and safe whoever calls meanwhile.
    buffer = _Buffer()
    call(dir_fd, path, flags, mask, buffer)
    filled, attributes, nlink, uid, gid, mode, ino, size, blocks, rmajor, rminor, major, minor, mnt_id = _unpack(buffer)
    return Statx(
        mode,
        ino,
        makedev(major, minor),
        nlink,
        uid,
        gid,
        size,
        blocks,
        mnt_id,
        attributes & STATX_ATTR_MOUNT_ROOT != 0,
        attributes & STATX_ATTR_IMMUTABLE != 0,
        attributes & STATX_ATTR_APPEND != 0,
        filled,
        makedev(rmajor, rminor),
    )
