"""A plain directory: the disk's own speed, no hard limit."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from provisioner.backends import Content, Occupied
from provisioner.disk import Disk
from provisioner.linux.openat2 import open_path
from provisioner.linux.statx import Statx, glance
from provisioner.model import Capability, Statistics
from provisioner.pace import Paced
from provisioner.records import DATA, WITHIN, BackendName, Record
from provisioner.targets import Target

# ruff: noqa: ARG002  what other means need, a directory does not


class DirectoryBackend:
    """The content is `data/`; its size is a promise that is watched, not enforced.

    Base of the means whose content is a directory too, and which hold it to its size.
    """

    name: BackendName = "directory"
    holds = False

    def __init__(self, disk: Disk) -> None:
        """Work on a pool's disk."""
        self._volumes_fd = disk.volumes_fd
        self._tree_fd = disk.tree_fd
        self._fs_type = disk.fs_type

    def refusal(self, content: Content) -> str:
        """Refuse what is no directory on the pool's own filesystem."""
        if content.block:
            return "wanted a raw block volume, found a directory; only 'image' has block volumes"
        if content.fs_type not in ("", self._fs_type):
            return f"fs_type {content.fs_type!r}: a directory has its pool's, {self._fs_type!r}; leave it empty"
        if content.thin:
            return "parameter 'thin': a directory takes what is written, and no more; only 'image' has a choice"
        return self._inodes_refusal() if content.inodes else ""

    def _inodes_refusal(self) -> str:
        return "parameter 'inodes': a plain directory has no limit of inodes"

    def least_bytes(self, content: Content) -> int:
        """Give a byte: a directory may be that small."""
        return 1

    def unit_bytes(self, content: Content) -> int:
        """Give a byte."""
        return 1

    def draft(self, record: Record, content: Content) -> Record:
        """Note nothing."""
        return record

    @contextmanager
    def building(self, entry_fd: int, record: Record) -> Iterator[Record]:
        """Make `data/` with its owner and mode."""
        os.mkdir(DATA, 0o700, dir_fd=entry_fd)
        fd = os.open(DATA, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=entry_fd)
        try:
            finish_root(fd, record)
        finally:
            os.close(fd)
        yield record

    @contextmanager
    def growing(self, record: Record, capacity_bytes: int) -> Iterator[None]:
        """Set the limit, if there is one, and set it back where the block fails."""
        self._set_limit(record, capacity_bytes)
        try:
            yield
        except OSError:
            with suppress(OSError):  # the next start does it
                self._set_limit(record, record.capacity_bytes)
            raise

    def _set_limit(self, record: Record, capacity_bytes: int) -> None:
        """Do nothing: the record alone carries the size."""

    def grown(self, record: Record) -> None:
        """Do nothing: it has."""

    def stage(self, record: Record, target: Target, capability: Capability) -> bool:
        """Do nothing: a directory needs no staging (spec, NodeStageVolume)."""
        return False

    def unstaged(self, record: Record) -> None:
        """Do nothing."""

    def grow(self, record: Record, target: Target) -> None:
        """Do nothing: it has grown."""

    def open_source(self, record: Record, staged: Target | None, *, readonly: bool) -> int:
        """Open `data/`."""
        return open_data(self._tree_fd, record.folder)

    def shows(self, record: Record, found: Statx) -> bool:
        """Compare the inode of `data/`."""
        return shows_data(self._volumes_fd, record.folder, found)

    def release(self, record: Record, targets: Iterable[str]) -> None:
        """Do nothing."""

    def occupied(self, record: Record) -> Occupied | None:
        """Count nothing: a directory's filesystem does not know what lies below it."""
        return None

    def statistics(self, record: Record, volume_path: str) -> Statistics | None:
        """Know nothing, for the same reason."""
        return None

    def illness(self, record: Record) -> str:
        """Find nothing: there is no limit that could be lost."""
        return ""

    def escaped(self, record: Record, pace: Paced) -> str:
        """Find nothing: there is no limit to slip out of."""
        return ""

    def recover(self, records: Iterable[Record]) -> None:
        """Do nothing."""

    def tend(self) -> None:
        """Do nothing."""

    def dismantle(self, entry_fd: int) -> bool:
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


def shows_data(volumes_fd: int, folder: str, found: Statx) -> bool:
    """Tell whether a mount shows the `data/` of a folder."""
    data = look_at_data(volumes_fd, folder)
    return found.mount_root and (found.dev, found.ino) == (data.dev, data.ino)
