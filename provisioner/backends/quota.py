"""A directory with a project id of its own, on XFS or ext4 with project quotas: a limit of bytes and of inodes.

Project ids come from a range that is the pool's alone, by its id. The filesystem itself is the table of those that
are taken: an id is free where it holds nothing and has no limit. So nothing is lost with a crash, ids of other tools
are respected, and one goes back only once no file has it any more.

It does not hold against everybody: who owns a file may give it another project, unless in a user namespace.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import msgspec
import structlog

from provisioner import records
from provisioner.backends import Content, Occupied
from provisioner.backends.directory import DirectoryBackend, finish_root
from provisioner.directories import opened
from provisioner.disk import Disk
from provisioner.linux.fsxattr import FS_XFLAG_PROJINHERIT, get_fsxattr, set_fsxattr
from provisioner.linux.quotactl import (
    FS_QUOTA_PDQ_ACCT,
    FS_QUOTA_PDQ_ENFD,
    ProjectQuota,
    get_next_quota,
    get_quota,
    project_state,
    set_limits,
)
from provisioner.model import Statistics, Usage
from provisioner.pace import Paced
from provisioner.records import DATA, BackendName, Record
from provisioner.walking import measure

log = structlog.get_logger(__name__)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_IDS_PER_POOL = 2**20
_RANGES = 2047  # of positive 32-bit numbers; the first range is left to people, whose ids are small
_BYTES_PER_INODE = 16384  # as mkfs.ext4 has it
_FEWEST_INODES = 1024
_TOLERATED_SHARE = 4  # of the size: what is written and removed while a walk goes on may be counted twice
_FIRM = "against tenants who mean ill only 'backend: image' holds"
_ON = FS_QUOTA_PDQ_ACCT | FS_QUOTA_PDQ_ENFD
_HOW = {
    "xfs": "mount it with -o prjquota",
    "ext4": "run 'tune2fs -O project,quota -Q prjquota' on the unmounted disk, then mount it with -o prjquota",
}

_allocating = threading.Lock()  # two pools may lie on one filesystem


class QuotaBackend(DirectoryBackend):
    """The content is `data/` in a project; a write past the size is EDQUOT on ext4, ENOSPC on XFS."""

    name: BackendName = "quota"
    holds = True

    def __init__(self, disk: Disk) -> None:
        """Work on a pool's disk."""
        super().__init__(disk)
        self._first = (1 + int(disk.pool_id, 16) % _RANGES) * _IDS_PER_POOL
        self._next = self._first
        self._ours: set[int] = set()
        self._leaving: set[int] = set()

    def refusal(self, content: Content) -> str:
        """Refuse where the filesystem has no project quotas, or they do not hold."""
        if self._fs_type not in _HOW:
            return f"wanted a pool on XFS or ext4, found {self._fs_type or 'an unknown filesystem'}"
        if not self._is_on():
            return f"this {self._fs_type} has no project quotas; {_HOW[self._fs_type]}"
        return super().refusal(content)

    def _inodes_refusal(self) -> str:
        return ""

    def _is_on(self) -> bool:
        try:
            return project_state(self._volumes_fd) & _ON == _ON
        except OSError:  # no quotas at all, or none in this kernel
            return False

    def unit_bytes(self, content: Content) -> int:  # noqa: ARG002  the Protocol names it
        """Give a block of the filesystem, which limits and `df` are counted in."""
        return os.fstatvfs(self._volumes_fd).f_frsize

    def draft(self, record: Record, content: Content) -> Record:
        """Note how many inodes are wished for."""
        return msgspec.structs.replace(record, inodes=content.inodes)

    @contextmanager
    def building(self, entry_fd: int, record: Record) -> Iterator[Record]:
        """Make `data/`, its project and its limits."""
        os.mkdir(DATA, 0o700, dir_fd=entry_fd)
        fd = os.open(DATA, _DIRECTORY, dir_fd=entry_fd)
        try:
            made = msgspec.structs.replace(record, project_id=self._allocate(record))
            try:
                self._mark(fd, made.project_id)
                finish_root(fd, made)
            except BaseException:
                self._leaving.add(made.project_id)
                raise
        finally:
            os.close(fd)
        yield made

    def _allocate(self, record: Record) -> int:
        """Take an id that nobody has, by giving it its limits."""
        with _allocating:
            for _ in range(_IDS_PER_POOL):
                candidate = self._next
                self._next = self._first + (candidate + 1 - self._first) % _IDS_PER_POOL
                if candidate not in self._ours and self._is_free(candidate):
                    self._limit(candidate, record)  # where it fails, the id is as free as before
                    self._ours.add(candidate)
                    return candidate
        raise OSError(errno.ENOSPC, "all project ids of the pool are taken")

    def _is_free(self, project_id: int) -> bool:
        try:
            found = get_quota(self._volumes_fd, project_id)
        except FileNotFoundError:
            return True
        return _is_blank(found) and not found.limit_bytes and not found.limit_inodes

    def _limit(self, project_id: int, record: Record) -> None:
        set_limits(self._volumes_fd, project_id, record.capacity_bytes, _inodes(record))

    def _mark(self, fd: int, project_id: int) -> None:
        """Put a directory, and all that will be made in it, into a project; read back, for not all kernels say no."""
        found = get_fsxattr(fd)
        set_fsxattr(fd, replace(found, projid=project_id, xflags=found.xflags | FS_XFLAG_PROJINHERIT))
        if not _is_marked(fd, project_id):
            raise OSError(errno.EOPNOTSUPP, f"the project id {project_id} was not kept")

    def _set_limit(self, record: Record, capacity_bytes: int) -> None:
        """Set the project's limits."""
        self._limit(record.project_id, msgspec.structs.replace(record, capacity_bytes=capacity_bytes))

    def occupied(self, record: Record) -> Occupied | None:
        """Give what counts against the limits."""
        found = self._quota(record)
        return Occupied(found.used_bytes, found.used_inodes) if found else None

    def _quota(self, record: Record) -> ProjectQuota | None:
        try:
            return get_quota(self._volumes_fd, record.project_id)
        except OSError:  # quotas are off
            return None

    def statistics(self, record: Record, volume_path: str) -> Statistics | None:  # noqa: ARG002  the Protocol names it
        """Give the limits and what counts against them, as df shows them in the volume."""
        found = self._quota(record)
        if found is None:
            return None
        disk = os.fstatvfs(self._volumes_fd)
        return Statistics(
            _usage(record.capacity_bytes, found.used_bytes, disk.f_bavail * disk.f_frsize),
            _usage(_inodes(record), found.used_inodes, disk.f_favail),
        )

    def illness(self, record: Record) -> str:
        """Find a limit that is gone, as after a mount without prjquota, and a root that left its project."""
        if not self._is_on():
            return f"the limit is lost: the disk has no project quotas; {_HOW.get(self._fs_type, '')}"
        found = self._quota(record)
        # Filesystems round the limit up to a block of theirs.
        if found is None or not record.capacity_bytes <= found.limit_bytes < record.capacity_bytes + 65536:
            limit = found.limit_bytes if found else 0
            return f"the limit is {limit}, wanted {record.capacity_bytes}; restart the driver to set it again"
        if found.limit_inodes != _inodes(record):
            return (
                f"the limit of inodes is {found.limit_inodes}, wanted {_inodes(record)}; "
                "restart the driver to set it again"
            )
        fd = os.open(f"{record.folder}/{DATA}", _DIRECTORY, dir_fd=self._volumes_fd)
        try:
            if _is_marked(fd, record.project_id):
                return ""
            return f"its root left project {record.project_id}, so the limit does not bind what is made in it"
        finally:
            os.close(fd)

    def escaped(self, record: Record, pace: Paced) -> str:
        """Count the directories that were given another project, and what the volume holds beside its limit.

        Files are not asked, for they would have to be opened: one that left the project tells by its size.
        """
        strayed = 0

        def look(dir_fd: int) -> None:
            nonlocal strayed
            strayed += not _is_marked(dir_fd, record.project_id)

        with opened(f"{record.folder}/{DATA}", self._volumes_fd) as fd:
            used_bytes, _ = measure(fd, pace, look)
        if strayed:
            what = f"{strayed} of its directories"
        elif used_bytes > record.capacity_bytes + record.capacity_bytes // _TOLERATED_SHARE:
            what = f"{used_bytes} bytes are there of {record.capacity_bytes}, so files"
        else:
            return ""
        project = record.project_id
        return (
            f"{what} left project {project} and its limit; find them with 'lsattr -Rp', bring them back with "
            f"'chattr +P -p {project}'; {_FIRM}"
        )

    def recover(self, records: Iterable[Record]) -> None:
        """Set every limit, and take those away that belong to nothing any more."""
        if not self._is_on():
            return
        for record in records:
            if record.backend == self.name:
                self._ours.add(record.project_id)
                self._recover(record)
        left = {found.project_id for found in self._known() if found.project_id not in self._ours}
        self._ours |= left  # a stranger's file may have it only now: who took it then would lose its limit in `tend`
        self._leaving |= left
        self.tend()

    def _recover(self, record: Record) -> None:
        if not self.illness(record):
            return
        try:
            self._limit(record.project_id, record)
            fd = os.open(f"{record.folder}/{DATA}", _DIRECTORY, dir_fd=self._volumes_fd)
            try:
                self._mark(fd, record.project_id)
            finally:
                os.close(fd)
        except OSError as error:  # one volume's limit must not keep the others from being served; its health tells
            log.warning("limit not set", volume_id=record.volume_id, error=str(error))

    def _known(self) -> Iterable[ProjectQuota]:
        """List the projects of the pool's range that the filesystem knows."""
        project_id = self._first
        while True:
            try:
                found = get_next_quota(self._volumes_fd, project_id)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ESRCH):
                    raise
                return
            if found.project_id >= self._first + _IDS_PER_POOL:
                return
            yield found
            project_id = found.project_id + 1

    def tend(self) -> None:
        """Give back the ids of volumes that were erased: no file has them any more."""
        for project_id in list(self._leaving):
            with suppress(OSError):  # quotas are off; the next start does it
                if not _is_blank(get_quota(self._volumes_fd, project_id)):
                    continue
                set_limits(self._volumes_fd, project_id, 0, 0)
            self._leaving.discard(project_id)
            self._ours.discard(project_id)

    def dismantle(self, entry_fd: int) -> bool:
        """Remember which id is leaving; its limit stays until the last file is gone."""
        project_id = _project_of(entry_fd) if self._fs_type in _HOW else 0
        if self._first <= project_id < self._first + _IDS_PER_POOL:
            self._leaving.add(project_id)
        return True


def _project_of(entry_fd: int) -> int:
    """Give the project of a volume in the trash: by its record, for its directory says what its tenant wants.

    0 where its data went before: then its id did as well, and another volume may be about to have it.
    """
    try:
        with opened(DATA, entry_fd) as fd:
            said = get_fsxattr(fd).projid
    except OSError:
        return 0
    try:
        return records.read(entry_fd, ".").project_id
    except ValueError:  # never finished, so that no tenant had it
        return said


def _inodes(record: Record) -> int:
    return record.inodes or max(_FEWEST_INODES, record.capacity_bytes // _BYTES_PER_INODE)


def _is_blank(found: ProjectQuota) -> bool:
    return not found.used_bytes and not found.used_inodes


def _is_marked(fd: int, project_id: int) -> bool:
    found = get_fsxattr(fd)
    return found.projid == project_id and bool(found.xflags & FS_XFLAG_PROJINHERIT)


def _usage(total: int, used: int, free: int) -> Usage:
    return Usage(total, used, max(0, min(total - used, free)))
