"""Flags that all system calls ending in `at` share (linux/fcntl.h)."""

from __future__ import annotations

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_NO_AUTOMOUNT = 0x800
AT_EMPTY_PATH = 0x1000  # path "" means the directory fd itself, which may be any file
AT_STATX_DONT_SYNC = 0x4000  # a network filesystem gives what it has in memory
AT_RECURSIVE = 0x8000  # open_tree and mount_setattr: the mounts below as well
