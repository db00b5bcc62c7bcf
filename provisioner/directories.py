"""Directories that tenants can write to, opened and listed by descriptor alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from provisioner.linux.openat2 import (
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    openat2,
)

# O_NOATIME: looking must not write to the disk.
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOATIME
_WITHIN = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV


def open_directory(path: str, dir_fd: int) -> int:
    """Open a directory below `dir_fd` on the same mount.

    ELOOP for a symlink on the way, EXDEV where something is mounted (a bind mount of the same filesystem
    too), ENOTDIR for anything else that is no directory; no file is ever opened.
    """
    return openat2(path, _DIRECTORY, resolve=_WITHIN, dir_fd=dir_fd)


def open_parent(dir_fd: int) -> int:
    """Open the directory above, on the same mount; the caller must look whether it is the one that was meant."""
    return openat2("..", _DIRECTORY, resolve=_WITHIN & ~RESOLVE_BENEATH, dir_fd=dir_fd)


@contextmanager
def opened(path: str, dir_fd: int) -> Iterator[int]:
    """Hold a directory open, by the rules of `open_directory`."""
    fd = open_directory(path, dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def listed(dir_fd: int) -> Iterator[Iterator[os.DirEntry[str]]]:
    """List a directory lazily, from its beginning, with one more descriptor while it lasts.

    Duplicates of a descriptor share its position, and scandir lists a duplicate: two threads that list the
    same one would each see a part. So it is opened anew.
    """
    with opened(".", dir_fd) as fd:
        entries = os.scandir(fd)
    with entries:
        yield entries
