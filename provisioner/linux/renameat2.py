"""renameat2(2): rename that never replaces anything."""

from __future__ import annotations

import ctypes

from provisioner.linux.libc import AnyPath, function, path_bytes

RENAME_NOREPLACE = 1

_renameat2 = function(
    "renameat2",
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint,
    paths=(1, 3),
)


def rename_noreplace(src: AnyPath, dst: AnyPath, *, src_dir_fd: int, dst_dir_fd: int) -> None:
    """Rename `src` to `dst`; EEXIST where `dst` is there, even as an empty directory or dangling symlink."""
    _renameat2(src_dir_fd, path_bytes(src), dst_dir_fd, path_bytes(dst), RENAME_NOREPLACE)
