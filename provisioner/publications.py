"""Where volumes are published: counted in memory, rebuilt at the start from the mounts themselves.

A mount does not tell for which access mode it was asked. That stands in the name of an empty file in the
pool, a hint: one system call where content would take three. It is made before the mount and without
fsync, for no mount survives a power cut either. A hint that cannot be made (a full disk must not keep pods
from starting) costs only the access mode after a restart: the publication is then taken for what the retry
says.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress

from provisioner import loops
from provisioner.disk import Disk
from provisioner.identity import CONTROL
from provisioner.linux.loop import LOOP_MAJOR
from provisioner.linux.mountinfo import MountInfo
from provisioner.linux.statx import AT_SYMLINK_NOFOLLOW, Statx, statx
from provisioner.model import AccessMode
from provisioner.names import folder_of_entry
from provisioner.records import DATA

_ROOT = re.compile(rf"(?:.*/)?{re.escape(CONTROL)}/(volumes|trash)/([^/]+)/{DATA}(?://deleted)?")
_HINT = re.compile(r"(?P<publication>.+@[0-9a-f]{32})\.(?P<mode>[0-7])")

_NODE = re.compile(r"/loop(\d+)")

STAGED = AccessMode.UNKNOWN  # not a publication, but in use all the same


class Publications:
    """The targets of each volume of one pool, and the access mode of each (None: not known)."""

    def __init__(self, disk: Disk, shows: Callable[[str, Statx], bool]) -> None:
        """Start empty; `recover` fills it. shows: tells whether what was found at a path is a volume, by its folder."""
        self._disk = disk
        self._shows = shows
        self._guard = threading.Lock()
        self._targets: dict[str, dict[str, AccessMode | None]] = {}

    def recover(self, mounts: Iterable[MountInfo]) -> None:
        """Find the publications that an earlier process made, and forget hints of those that are gone."""
        hints = self._read_hints()
        for mount in mounts:
            folder = folder_shown(mount)
            if folder and self._may_be_at(folder, mount.mount_point):  # else a volume in use could be deleted
                modes = hints.pop(_publication(folder, mount.mount_point), [])
                self._targets.setdefault(folder, {})[mount.mount_point] = modes[0] if len(modes) == 1 else None
        for publication, modes in hints.items():
            for mode in modes:
                self._unlink(f"{publication}.{mode.value}")

    def _read_hints(self) -> dict[str, list[AccessMode]]:
        """Give the access modes that hints tell, by publication; remove what is no hint."""
        hints: dict[str, list[AccessMode]] = defaultdict(list)
        for name in os.listdir(self._disk.published_fd):
            found = _HINT.fullmatch(name)
            if found:
                hints[found["publication"]].append(AccessMode(int(found["mode"])))
            else:
                self._unlink(name)
        return hints

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
        found = statx(target_path, flags=AT_SYMLINK_NOFOLLOW)  # an open mount could not be unmounted meanwhile
        return self._shows(folder, found)

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
            found = self._targets.get(folder, {})
            return {path: mode for path, mode in found.items() if path != target_path and mode is not STAGED}

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
            targets = self._targets.setdefault(folder, {})
            before = targets.get(target_path)
            targets[target_path] = mode
        if before not in (mode, None):
            self._unlink(_hint(folder, target_path, before))
        with suppress(OSError):  # it may be there already, and the disk may be full
            os.mknod(_hint(folder, target_path, mode), 0o600, dir_fd=self._disk.published_fd)

    def remove(self, folder: str, target_path: str) -> None:
        """Forget a publication that is not mounted any more."""
        with self._guard:
            targets = self._targets.get(folder, {})
            mode = targets.pop(target_path, None)
            if not targets:
                self._targets.pop(folder, None)
        if mode is not None:
            self._unlink(_hint(folder, target_path, mode))

    def _unlink(self, name: str) -> None:
        with suppress(OSError):
            os.unlink(name, dir_fd=self._disk.published_fd)


def folder_shown(mount: MountInfo) -> str:
    """Name the volume that a mount shows; '' where it is none of ours."""
    behind = loops.folder_behind(os.minor(mount.dev)) if os.major(mount.dev) == LOOP_MAJOR else ""
    return behind or folder_of(mount.root)  # a pool may lie on a loop device as well


def folder_of(root: str) -> str:
    """Name the volume that a mount shows, by its root within the filesystem; '' where it is none of ours.

    A volume's folder in the trash ends in '.<time>'; it was `volumes/<folder>` when it was mounted. The node of a
    device is named by what the device shows.
    """
    node = _NODE.fullmatch(root)
    if node:
        return loops.folder_behind(int(node[1]))
    match = _ROOT.fullmatch(root)
    if match is None:
        return ""
    return match[2] if match[1] == "volumes" else folder_of_entry(match[2])


def _hint(folder: str, target_path: str, mode: AccessMode) -> str:
    return f"{_publication(folder, target_path)}.{mode.value}"


def _publication(folder: str, target_path: str) -> str:
    """Name a publication within the 255 bytes of a file's name."""
    return f"{folder}@{hashlib.sha256(os.fsencode(target_path)).hexdigest()[:32]}"
