"""A plain directory: the disk's own speed, no hard limit."""

from __future__ import annotations

import os
from collections.abc import Iterable

from provisioner.linux.openat2 import open_path
from provisioner.linux.statx import Statx, glance
from provisioner.model import Statistics
from provisioner.records import DATA, WITHIN, BackendName, Record


class DirectoryBackend:
    """The content is `data/`; its size is a promise that is watched, not enforced."""

    name: BackendName = "directory"
    holds = False

    def __init__(self, tree_fd: int) -> None:
        """Work below the directory of a pool's volumes."""
        self._tree_fd = tree_fd

    def refusal(self) -> str:
        """Refuse nothing: any filesystem has directories."""
        return ""

    def build(self, entry_fd: int, record: Record) -> Record:
        """Make `data/` with its owner and mode."""
        os.mkdir(DATA, 0o700, dir_fd=entry_fd)
        fd = os.open(DATA, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=entry_fd)
        try:
            finish_root(fd, record)
        finally:
            os.close(fd)
        return record

    def resize(self, record: Record, capacity_bytes: int) -> None:
        """Do nothing: the record alone carries the size."""

    def open_source(self, folder: str) -> int:
        """Open `data/`."""
        return open_data(self._tree_fd, folder)

    def figures(self, record: Record) -> Statistics | None:  # noqa: ARG002  the Protocol names it
        """Count nothing: a directory's filesystem does not know what lies below it."""
        return None

    def illness(self, record: Record) -> str:  # noqa: ARG002  the Protocol names it
        """Find nothing: there is no limit that could be lost."""
        return ""

    def recover(self, records: Iterable[Record]) -> None:
        """Do nothing."""

    def tend(self) -> None:
        """Do nothing."""

    def dismantle(self, entry_fd: int) -> bool:  # noqa: ARG002  the Protocol names it
        """Leave it to the eraser: there are only files."""
        return True


def finish_root(fd: int, record: Record) -> None:
    """Give a volume's root its owner and mode, and sync it; chmod follows chown, which may clear setgid (chown(2))."""
    os.fchown(fd, record.uid, record.gid)
    os.fchmod(fd, int(record.mode, 8))
    os.fsync(fd)


def open_data(tree_fd: int, folder: str) -> int:
    """Open `data/`, which must lie on the pool's own filesystem with no symlink on the way."""
    return open_path(f"{folder}/{DATA}", os.O_DIRECTORY, resolve=WITHIN, dir_fd=tree_fd)


def look_at_data(volumes_fd: int, folder: str) -> Statx:
    """Examine `data/`: its device and inode are those of a mount that shows it."""
    return glance(f"{folder}/{DATA}", dir_fd=volumes_fd)
