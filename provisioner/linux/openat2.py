"""openat2(2): open a path that someone else may have prepared, without being led astray."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from provisioner.linux.at import AT_FDCWD
from provisioner.linux.libc import AnyPath, path_bytes, system_call

RESOLVE_NO_XDEV = 0x01  # EXDEV at a mount point, bind mounts included
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04  # ELOOP at any symlink; implies NO_MAGICLINKS
RESOLVE_BENEATH = 0x08  # EXDEV for absolute paths and where `..` would leave the directory
RESOLVE_IN_ROOT = 0x10
RESOLVE_CACHED = 0x20  # EAGAIN where the lookup cache does not have it all; Linux 5.12

_NR = 437
_OPEN_HOW = struct.Struct("=QQQ")  # flags, mode, resolve
_SIZE = _OPEN_HOW.size
_pack = _OPEN_HOW.pack
_TRIES = 128

_ARGUMENTS = (ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
_openat2 = system_call("openat2", *_ARGUMENTS, paths=(2,), since="5.6")
_openat2_brief = system_call("openat2", *_ARGUMENTS, paths=(2,), since="5.6", brief=True)


def openat2(path: AnyPath, flags: int, *, resolve: int = 0, mode: int = 0, dir_fd: int = AT_FDCWD) -> int:
    """Open `path` under the RESOLVE_ rules and return a file descriptor, always close-on-exec.

    `mode` other than 0 needs O_CREAT or O_TMPFILE. The kernel answers EAGAIN when any rename or mount on
    the machine raced with a `..` it has to be sure of; that, and EINTR, is tried again before it is raised.
    """
    raw = path_bytes(path)
    how = _pack(flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(_TRIES - 1):
        try:
            return _openat2(_NR, dir_fd, raw, how, _SIZE)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EINTR):
                raise
    return _openat2(_NR, dir_fd, raw, how, _SIZE)


def open_path(path: AnyPath, flags: int = 0, *, resolve: int = 0, dir_fd: int = AT_FDCWD) -> int:
    """Open `path` with O_PATH, which asks nothing of its filesystem, as `openat2` does.

    What the lookup cache has is opened without giving the GIL away, for that never waits for a disk.
    """
    flags |= os.O_PATH | os.O_CLOEXEC
    try:
        return _openat2_brief(_NR, dir_fd, path_bytes(path), _pack(flags, 0, resolve | RESOLVE_CACHED), _SIZE)
    except BlockingIOError:
        return openat2(path, flags, resolve=resolve, dir_fd=dir_fd)
