"""Mounting: open_tree(2), mount_setattr(2), move_mount(2) and the older mount(2) and umount2(2).

The first three make a mount that has its attributes before anyone can see it; mount(2) needs two steps for
a read-only bind, and it is writable in between.
"""

from __future__ import annotations

import ctypes
import os
import struct

from provisioner.linux.at import AT_FDCWD
from provisioner.linux.libc import AnyPath, function, path_bytes, system_call

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70  # which of the next three; to set one, clear this in the same call
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000  # Linux 5.14

OPEN_TREE_CLONE = 0x1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC

MOVE_MOUNT_F_SYMLINKS = 0x01
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_SYMLINKS = 0x10
MOVE_MOUNT_T_EMPTY_PATH = 0x40

MNT_FORCE = 0x1
MNT_DETACH = 0x2
MNT_EXPIRE = 0x4
UMOUNT_NOFOLLOW = 0x8

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_NOATIME = 0x400
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000

_NR_OPEN_TREE = 428
_NR_MOVE_MOUNT = 429
_NR_MOUNT_SETATTR = 442
_MOUNT_ATTR = struct.Struct("=QQQQ")  # attr_set, attr_clr, propagation, userns_fd

_OPEN_TREE = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_open_tree = system_call("open_tree", *_OPEN_TREE, paths=(2,), since="5.2")
_open_tree_brief = system_call("open_tree", *_OPEN_TREE, paths=(2,), since="5.2", brief=True)
_move_mount = system_call(
    "move_mount",
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint,
    paths=(2, 4),
    since="5.2",
)
_mount_setattr = system_call(
    "mount_setattr",
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint,
    ctypes.c_char_p,
    ctypes.c_size_t,
    paths=(2,),
    since="5.12",
)
_mount = function(
    "mount", ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p, paths=(0, 1)
)
_umount2 = function("umount2", ctypes.c_char_p, ctypes.c_int, paths=(0,))


def open_tree(path: AnyPath, *, dir_fd: int = AT_FDCWD, flags: int = 0) -> int:
    """Return an O_PATH descriptor of `path`, always close-on-exec.

    With OPEN_TREE_CLONE, of a new bind mount of it that is attached nowhere: it vanishes with the descriptor
    unless `move_mount` attaches it, and AT_RECURSIVE takes the mounts below along.
    """
    call = _open_tree if path else _open_tree_brief  # without a path to walk, no disk is asked
    return call(_NR_OPEN_TREE, dir_fd, path_bytes(path), flags | OPEN_TREE_CLOEXEC)


def mount_setattr(
    dir_fd: int, path: AnyPath, *, flags: int, attr_set: int = 0, attr_clr: int = 0, propagation: int = 0
) -> None:
    """Change the attributes (MOUNT_ATTR_) and propagation (one of MS_SHARED, ...) of a mount at once.

    `path` must be the root of a mount; "" with AT_EMPTY_PATH means `dir_fd`.
    """
    attributes = _MOUNT_ATTR.pack(attr_set, attr_clr, propagation, 0)
    _mount_setattr(_NR_MOUNT_SETATTR, dir_fd, path_bytes(path), flags, attributes, len(attributes))


def move_mount(
    from_path: AnyPath,
    to_path: AnyPath,
    *,
    from_dir_fd: int = AT_FDCWD,
    to_dir_fd: int = AT_FDCWD,
    flags: int = 0,
) -> None:
    """Attach the mount `from` at `to`. Symlinks are followed only where `flags` say so."""
    _move_mount(_NR_MOVE_MOUNT, from_dir_fd, path_bytes(from_path), to_dir_fd, path_bytes(to_path), flags)


def mount(
    source: AnyPath | None,
    target: AnyPath,
    fstype: str | None = None,
    flags: int = 0,
    data: str | None = None,
) -> None:
    """Mount the classic way: `flags` are MS_, `data` the filesystem's own options, separated by commas."""
    _mount(
        None if source is None else path_bytes(source),
        path_bytes(target),
        None if fstype is None else path_bytes(fstype),
        flags,
        None if data is None else path_bytes(data),
    )


def umount2(path: AnyPath, flags: int = 0) -> None:
    """Unmount the topmost mount at `path`; UMOUNT_NOFOLLOW makes a symlink there EINVAL."""
    _umount2(path_bytes(path), flags)
