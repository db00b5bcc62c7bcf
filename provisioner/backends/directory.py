"""A plain directory: the disk's own speed, no hard limit."""

from __future__ import annotations

import os

from provisioner.backends import Layout
from provisioner.linux.openat2 import openat2
from provisioner.records import DATA, WITHIN


class DirectoryBackend:
    """The content is `data/`; its size is a promise that is watched, not enforced."""

    name = "directory"

    def build(self, entry_fd: int, layout: Layout) -> None:
        """Make `data/` with its owner and mode; chmod follows chown, which may clear setgid (chown(2))."""
        os.mkdir(DATA, 0o700, dir_fd=entry_fd)
        fd = os.open(DATA, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=entry_fd)
        try:
            os.fchown(fd, layout.uid, layout.gid)
            os.fchmod(fd, layout.mode)
            os.fsync(fd)
        finally:
            os.close(fd)

    def resize(self, volumes_fd: int, folder: str, capacity_bytes: int) -> None:
        """Do nothing: the record alone carries the size."""

    def open_source(self, volumes_fd: int, folder: str) -> int:
        """Open `data/`, which must lie on the pool's own filesystem with no symlink on the way."""
        return openat2(f"{folder}/{DATA}", os.O_PATH | os.O_DIRECTORY, resolve=WITHIN, dir_fd=volumes_fd)
