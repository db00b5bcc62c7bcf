"""Whether a volume was ever published: what never was holds nobody's data.

The mark is the sticky bit of the volume's folder, which root alone sees. A bit needs no room, so that a full disk
can neither keep it from being set nor a pod from starting.
"""

from __future__ import annotations

import errno
import os
import stat
from datetime import UTC, datetime

from provisioner.errors import OperationPending, Precondition
from provisioner.linux.openat2 import openat2
from provisioner.linux.statx import glance
from provisioner.pool import Contents
from provisioner.records import DATA, WITHIN, Record

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def mark(volumes_fd: int, folder: str) -> None:
    """Note, safe from a power cut, that a volume is about to be published; a read-only disk keeps no mark."""
    if is_marked(volumes_fd, folder):
        return
    fd = openat2(folder, _DIRECTORY, resolve=WITHIN, dir_fd=volumes_fd)
    try:
        os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) | stat.S_ISVTX)
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
    finally:
        os.close(fd)


def is_marked(volumes_fd: int, folder: str) -> bool:
    """Tell whether a volume was ever published."""
    return bool(glance(folder, dir_fd=volumes_fd).mode & stat.S_ISVTX)


class OnlyIfUnused:
    """Lets a deletion go on where a volume is old, was never published, and holds no file.

    OperationPending for one that is young: its creation may still be going on. Precondition for one that was used.
    """

    def __init__(self, older_than_s: float) -> None:
        self._older_than_s = older_than_s

    def __call__(self, contents: Contents, record: Record) -> None:
        """Raise where the volume is not so."""
        what = f"volume {record.volume_id}: left alone, for it"
        age_s = (datetime.now(UTC) - datetime.fromisoformat(record.created_at)).total_seconds()
        if age_s < self._older_than_s:
            raise OperationPending(f"{what} is {age_s:.0f} s old, wanted {self._older_than_s:.0f}")
        if is_marked(contents.disk.volumes_fd, record.folder):
            raise Precondition(f"{what} was published once")
        if _holds_files(contents.disk.volumes_fd, record.folder):
            raise Precondition(f"{what} holds files")


def _holds_files(volumes_fd: int, folder: str) -> bool:
    """Tell whether a volume that is a directory has anything in it; of an image the mark must tell."""
    try:
        fd = openat2(f"{folder}/{DATA}", _DIRECTORY, resolve=WITHIN, dir_fd=volumes_fd)
    except FileNotFoundError:
        return False
    try:
        with os.scandir(fd) as entries:
            return next(entries, None) is not None
    finally:
        os.close(fd)
