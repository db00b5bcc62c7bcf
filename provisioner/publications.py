"""Where volumes are published: counted in memory, rebuilt at the start from the mounts themselves.

A mount does not tell for which access mode it was asked. That stands in a small hint in the pool,
written before the mount and without fsync, for no mount survives a power cut either. A hint that
cannot be written (a full disk must not keep pods from starting) or read costs only the access mode
after a restart: the publication is then taken for what the retry says.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import threading
from collections.abc import Iterable

import msgspec

from provisioner.disk import Disk
from provisioner.identity import CONTROL
from provisioner.linux.mountinfo import MountInfo
from provisioner.linux.statx import AT_SYMLINK_NOFOLLOW, statx
from provisioner.model import AccessMode
from provisioner.records import DATA

_ROOT = re.compile(rf"(?:.*/)?{re.escape(CONTROL)}/(volumes|trash)/([^/]+)/{DATA}(?://deleted)?")


class Hint(msgspec.Struct, frozen=True):
    """Content of `published/<folder>@<digest>.json`."""

    target_path: str
    access_mode: int


class Publications:
    """The targets of each volume of one pool, and the access mode of each (None: not known)."""

    def __init__(self, disk: Disk) -> None:
        """Start empty; `recover` fills it."""
        self._disk = disk
        self._guard = threading.Lock()
        self._targets: dict[str, dict[str, AccessMode | None]] = {}

    def recover(self, mounts: Iterable[MountInfo]) -> None:
        """Find the publications that an earlier process made, and forget hints of those that are gone."""
        hints = self._read_hints()
        for mount in mounts:
            folder = folder_of(mount.root)
            if folder and self._may_be_at(folder, mount.mount_point):  # else a volume in use could be deleted
                hint = hints.pop(_file(folder, mount.mount_point), None)
                mode = AccessMode(hint.access_mode) if hint else None
                self._targets.setdefault(folder, {})[mount.mount_point] = mode
        for file in hints:
            self._unlink(file)

    def _read_hints(self) -> dict[str, Hint | None]:
        return {file: self._read_hint(file) for file in os.listdir(self._disk.published_fd)}

    def _read_hint(self, file: str) -> Hint | None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(file, flags, dir_fd=self._disk.published_fd), "rb") as content:
                hint = msgspec.json.decode(content.read(65536), type=Hint)
                AccessMode(hint.access_mode)
        except (OSError, ValueError, msgspec.MsgspecError):
            return None
        return hint

    def is_at(self, folder: str, target_path: str) -> bool:
        """Tell whether the volume is what is mounted at a path, by the inode of its root."""
        try:
            return self._is_at(folder, target_path)
        except OSError:
            return False

    def _may_be_at(self, folder: str, target_path: str) -> bool:
        """Tell the same before something is taken away: what cannot be looked at (EIO) may well be there."""
        try:
            return self._is_at(folder, target_path)
        except OSError as error:
            return error.errno not in (errno.ENOENT, errno.ENOTDIR)

    def _is_at(self, folder: str, target_path: str) -> bool:
        found = statx(target_path, flags=AT_SYMLINK_NOFOLLOW)
        data = statx(f"{folder}/{DATA}", dir_fd=self._disk.volumes_fd, flags=AT_SYMLINK_NOFOLLOW)
        return found.mount_root and (found.dev, found.ino) == (data.dev, data.ino)

    @property
    def volume_count(self) -> int:
        """How many volumes are published, by the count."""
        return len(self._targets)

    def mode_at(self, folder: str, target_path: str) -> AccessMode | None:
        """Access mode of a publication; None where it is not known."""
        with self._guard:
            return self._targets.get(folder, {}).get(target_path)

    def others(self, folder: str, target_path: str) -> dict[str, AccessMode | None]:
        """Publications of a volume at other targets, by the count; some may be gone."""
        with self._guard:
            return {path: mode for path, mode in self._targets.get(folder, {}).items() if path != target_path}

    def alive(self, folder: str) -> list[str]:
        """Targets at which the volume is mounted now; forgets those that somebody else unmounted."""
        with self._guard:
            known = list(self._targets.get(folder, ()))
        living = [path for path in known if self._may_be_at(folder, path)]
        for path in set(known).difference(living):
            self.remove(folder, path)
        return living

    def add(self, folder: str, target_path: str, mode: AccessMode) -> None:
        """Count a publication that is about to be mounted."""
        with self._guard:
            self._targets.setdefault(folder, {})[target_path] = mode
        self._write_hint(_file(folder, target_path), Hint(target_path, mode.value))

    def remove(self, folder: str, target_path: str) -> None:
        """Forget a publication that is not mounted any more."""
        with self._guard:
            targets = self._targets.get(folder, {})
            targets.pop(target_path, None)
            if not targets:
                self._targets.pop(folder, None)
        self._unlink(_file(folder, target_path))

    def _write_hint(self, file: str, hint: Hint) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(file, flags, 0o600, dir_fd=self._disk.published_fd)
        except OSError:
            return
        try:
            os.write(fd, msgspec.json.encode(hint))
        except OSError:
            self._unlink(file)
        finally:
            os.close(fd)

    def _unlink(self, file: str) -> None:
        try:
            os.unlink(file, dir_fd=self._disk.published_fd)
        except OSError:
            return


def folder_of(root: str) -> str:
    """Name the volume that a mount shows, by its root within the filesystem; '' where it is none of ours.

    A volume's folder in the trash ends in '.<time>'; it was `volumes/<folder>` when it was mounted.
    """
    match = _ROOT.fullmatch(root)
    if match is None:
        return ""
    return match[2] if match[1] == "volumes" else match[2].rpartition(".")[0]


def _file(folder: str, target_path: str) -> str:
    return f"{folder}@{hashlib.sha256(os.fsencode(target_path)).hexdigest()[:32]}.json"
