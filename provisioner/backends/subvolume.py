"""A btrfs subvolume under a quota group of level 1, which carries the limit.

The limit is not on the subvolume's own group, for a tenant may nest another subvolume in it, whose own group would
have none. Simple quotas let nested ones join the parent's group at once; with full ones `tend` finds and adds them.
The group of subvolume 257 is 1/257.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import msgspec
import structlog

from provisioner.backends import Content, Occupied
from provisioner.backends.directory import DirectoryBackend, finish_root
from provisioner.disk import Disk
from provisioner.linux import btrfs
from provisioner.model import Statistics, Usage
from provisioner.pace import Rarely
from provisioner.records import DATA, BackendName, Record
from provisioner.settings import QuotaKey

log = structlog.get_logger(__name__)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MARK = "subvolume-"  # an empty folder in a trash entry: what was destroyed, and may not be freed yet
_RESCAN_S, _RESCAN_MOST_S = 2.0, 300.0
_OFF = (
    "quotas of this btrfs are off; switch them on with 'btrfs quota enable', or let the driver do it with "
    "'quota: enable' in the pool's settings"
)


class SubvolumeBackend(DirectoryBackend):
    """The content is the subvolume `data`; a write past the size is EDQUOT."""

    name: BackendName = "subvolume"
    holds = True

    def __init__(self, disk: Disk, quota: QuotaKey) -> None:
        """Work on a pool's disk; quota: what the administrator lets us switch on."""
        super().__init__(disk)
        self._quota = quota
        self._ours: dict[int, int] = {}  # subvolume -> its group, of volumes and of what is nested in them
        self._seen = btrfs.BTRFS_FIRST_FREE_OBJECTID
        self._rescans = Rarely(_RESCAN_S, _RESCAN_MOST_S)
        self._reuse = threading.Lock()  # a new volume may get the id of one that is still in the trash

    def refusal(self, content: Content) -> str:
        """Refuse where there is no btrfs, or it does not count."""
        if self._fs_type != "btrfs":
            return f"wanted a pool on btrfs, found {self._fs_type or 'an unknown filesystem'}"
        if not btrfs.quota_status(self._volumes_fd) & btrfs.BTRFS_QGROUP_STATUS_FLAG_ON:
            return _OFF
        return super().refusal(content)

    def _inodes_refusal(self) -> str:
        return "parameter 'inodes': btrfs has no limit of inodes"

    @contextmanager
    def building(self, entry_fd: int, record: Record) -> Iterator[Record]:
        """Make the subvolume, its group and its limit."""
        btrfs.create_subvolume(entry_fd, DATA)
        fd = os.open(DATA, _DIRECTORY, dir_fd=entry_fd)
        try:
            number = btrfs.subvolume_id_of(fd)
            with self._reuse:
                self._vacate(number)
                self._hold(number, record.capacity_bytes)
            finish_root(fd, record)
        finally:
            os.close(fd)
        yield msgspec.structs.replace(record, subvolume_id=number)

    def _vacate(self, number: int) -> None:
        """Take out of a new volume's group what an earlier one of the same id left there."""
        group = _group(number)
        for member in _or_none(lambda: btrfs.qgroup_members(self._volumes_fd, group)):
            with _tolerated(errno.ENOENT):
                btrfs.qgroup_unassign(self._volumes_fd, member, group)

    def _hold(self, number: int, capacity_bytes: int) -> None:
        """Make the group of a volume's subvolume, and its limit, as they should be."""
        group = _group(number)
        with _tolerated(errno.EEXIST):
            btrfs.qgroup_create(self._volumes_fd, group)
        with _tolerated(errno.EEXIST):
            btrfs.qgroup_assign(self._volumes_fd, number, group)
        btrfs.qgroup_limit(self._volumes_fd, group, capacity_bytes)
        self._ours[number] = group

    def _set_limit(self, record: Record, capacity_bytes: int) -> None:
        """Set the group's limit."""
        btrfs.qgroup_limit(self._volumes_fd, _group(record.subvolume_id), capacity_bytes)

    def occupied(self, record: Record) -> Occupied | None:
        """Give what the group holds as of the last commit, at most half a minute ago by default."""
        try:
            found = btrfs.qgroup_info(self._volumes_fd, _group(record.subvolume_id))
        except FileNotFoundError:  # quotas are off
            return None
        return Occupied(found.referenced_bytes, 0) if found else None

    def statistics(self, record: Record, volume_path: str) -> Statistics | None:  # noqa: ARG002  the Protocol names it
        """Give the limit and what counts against it; df shows the whole pool."""
        found = self.occupied(record)
        if found is None:
            return None
        left = max(0, record.capacity_bytes - found.used_bytes)
        left = min(left, _free_bytes(self._volumes_fd))
        return Statistics(Usage(record.capacity_bytes, found.used_bytes, left), inodes=None)

    def illness(self, record: Record) -> str:
        """Find a limit that is gone, as after 'btrfs quota disable'."""
        if not btrfs.quota_status(self._volumes_fd) & btrfs.BTRFS_QGROUP_STATUS_FLAG_ON:
            return f"the limit is lost: {_OFF}"
        found = btrfs.qgroup_limit_of(self._volumes_fd, _group(record.subvolume_id))
        if found != record.capacity_bytes:
            return f"the limit is {found}, wanted {record.capacity_bytes}; restart the driver to set it again"
        if not self._is_member(record):
            return "the limit does not bind: the subvolume left its quota group; restart the driver to put it back"
        return ""

    def _is_member(self, record: Record) -> bool:
        return _group(record.subvolume_id) in btrfs.qgroup_parents(self._volumes_fd, record.subvolume_id)

    def recover(self, records: Iterable[Record]) -> None:
        """Switch quotas on where the administrator said so, then hold every volume."""
        if self._fs_type != "btrfs":
            return
        if not btrfs.quota_status(self._volumes_fd) & btrfs.BTRFS_QGROUP_STATUS_FLAG_ON and not self._enable():
            return
        for record in records:
            if record.backend == self.name:
                self._recover(record)
        self.tend()

    def _enable(self) -> bool:
        """Switch quotas on if that is wanted."""
        if self._quota == "require":
            return False
        if self._quota == "simple":
            log.warning("simple quotas switched on: kernels before 6.7 never mount this filesystem again")
            btrfs.quota_ctl(self._volumes_fd, btrfs.BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA)
        else:
            log.info("quotas switched on")
            btrfs.quota_ctl(self._volumes_fd, btrfs.BTRFS_QUOTA_CTL_ENABLE)
        return True

    def _recover(self, record: Record) -> None:
        number, group = record.subvolume_id, _group(record.subvolume_id)
        self._ours[number] = group
        if self._is_member(record) and btrfs.qgroup_limit_of(self._volumes_fd, group) == record.capacity_bytes:
            return
        try:
            self._hold(number, record.capacity_bytes)
        except OSError as error:  # one volume's limit must not keep the others from being served; its health tells
            log.warning("limit not set", volume_id=record.volume_id, error=str(error))

    def tend(self) -> None:
        """Add to a volume's group the subvolumes that were made in it since the last look.

        With simple quotas too, where a tenant may name other groups at the birth of a subvolume than its parent's.
        Ids only grow while it is mounted, so that a look costs as much as there are new ones. A snapshot shares
        extents, which the kernel cannot count anew in passing: then all are counted again. Each tenant can bring that
        about, and meanwhile limits hold only what is counted already: so it is done ever more rarely.
        """
        if self._fs_type != "btrfs":
            return
        status = btrfs.quota_status(self._volumes_fd)
        if not status & btrfs.BTRFS_QGROUP_STATUS_FLAG_ON:
            return
        for number in btrfs.subvolumes_from(self._volumes_fd, self._seen + 1):
            self._adopt(number)
            self._seen = number
        wrong, counting = btrfs.BTRFS_QGROUP_STATUS_FLAG_INCONSISTENT, btrfs.BTRFS_QGROUP_STATUS_FLAG_RESCAN
        if status & (wrong | counting) == wrong and self._rescans.may():
            with _tolerated(errno.EINPROGRESS):
                btrfs.quota_rescan(self._volumes_fd)

    def _adopt(self, number: int) -> None:
        """Let a subvolume count where those around it do, should one of them be ours.

        Not only its parent is asked: a tenant may move it into one that was made after it, and is not known yet.
        """
        path: list[int] = []
        above: int | None = number
        while above and above not in self._ours:
            path.append(above)
            above = btrfs.parent_of(self._volumes_fd, above)
        if above:
            for nested in path:
                self._join(nested, self._ours[above])

    def _join(self, number: int, group: int) -> None:
        """Let a nested subvolume count in its volume's group, and in that of no other volume."""
        # It does already, or is gone; or its volume's group is, as after 'btrfs quota disable': health tells of that.
        with _tolerated(errno.EEXIST, errno.ENOENT, errno.EINVAL):
            btrfs.qgroup_assign(self._volumes_fd, number, group)
            log.info("nested subvolume found", subvolume=number, group=_shown(group))
        others = set(btrfs.qgroup_parents(self._volumes_fd, number)) - {group}
        for other in others.intersection(self._ours.values()):
            log.warning("nested subvolume counted in another volume's group", subvolume=number, group=_shown(other))
            with _tolerated(errno.ENOENT):
                btrfs.qgroup_unassign(self._volumes_fd, number, other)
        self._ours[number] = group

    def dismantle(self, entry_fd: int) -> bool:
        """Destroy `data` and what is nested in it, and once the kernel has freed them, their groups."""
        if self._fs_type != "btrfs":
            return True
        self._destroy(entry_fd)
        marks = [name for name in _listed(entry_fd) if name.startswith(_MARK)]
        for mark in marks:
            with self._reuse:
                if not self._forget(entry_fd, int(mark.removeprefix(_MARK))):
                    return False
            os.rmdir(mark, dir_fd=entry_fd)
        return True

    def _destroy(self, entry_fd: int) -> None:
        try:
            fd = os.open(DATA, _DIRECTORY, dir_fd=entry_fd)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            if os.fstat(fd).st_ino != btrfs.BTRFS_FIRST_FREE_OBJECTID:
                return  # a plain directory, which the eraser empties
            number = btrfs.subvolume_id_of(fd)
        finally:
            os.close(fd)
        with _tolerated(errno.EEXIST):
            os.mkdir(f"{_MARK}{number}", 0o700, dir_fd=entry_fd)
        # At its limit nothing can be destroyed: that writes as well.
        with _tolerated(errno.ENOENT, errno.ENOTCONN):
            btrfs.qgroup_limit(entry_fd, _group(number), None)
        found = self._nested(entry_fd, number)
        if found:
            with _tolerated(errno.EEXIST, errno.ENOTCONN):  # 'btrfs quota disable' took it away
                btrfs.qgroup_create(entry_fd, _group(number))
        for around in (number, *found) if found else ():
            # A tenant may make them read-only, and what lies in them stays.
            with _tolerated(errno.ENOENT, errno.ESTALE):
                _make_writable(entry_fd, around)
        for nested in found:
            with _tolerated(errno.EEXIST, errno.ENOENT, errno.ENOTCONN, errno.EINVAL):  # EINVAL: it has no group
                btrfs.qgroup_assign(entry_fd, nested, _group(number))  # so that it is found again by `_forget`
            btrfs.destroy_subvolume_by_id(entry_fd, nested)
        btrfs.destroy_subvolume(entry_fd, DATA)

    def _nested(self, fd: int, number: int) -> list[int]:
        """List all that is nested in a subvolume, the innermost first."""
        found, todo = [], [number]
        while todo:
            inner = btrfs.nested_subvolumes(fd, todo.pop())
            found += inner
            todo += inner
        return found[::-1]

    def _forget(self, fd: int, number: int) -> bool:
        """Remove the groups of a destroyed volume; False while one of its subvolumes is not freed.

        They are left alone where its id was given anew, as btrfs may do after a mount: they are another volume's then,
        perhaps of another pool. If the id is that of one nested in a volume of ours, they are still remains.
        """
        group = _group(number)
        if btrfs.parent_of(fd, number) and self._ours.get(number, group) == group:
            return True
        members = {number, *_or_none(lambda: btrfs.qgroup_members(fd, group))}
        for stranger in [member for member in members if btrfs.parent_of(fd, member)]:  # as `tend` finds them
            with _tolerated(errno.ENOENT, errno.ENOTCONN):
                btrfs.qgroup_unassign(fd, stranger, group)
            members.remove(stranger)
        if any(btrfs.subvolume_exists(fd, member) for member in members):
            return False
        try:
            for gone in (*members, group):
                with _tolerated(errno.ENOENT, errno.ENOTCONN):
                    btrfs.qgroup_remove(fd, gone)
        except OSError as error:
            if error.errno == errno.EBUSY:  # Linux 6.1 counts on for a moment after it has freed all
                return False
            raise
        for member in members:
            self._ours.pop(member, None)
        return True


def _free_bytes(fd: int) -> int:
    found = os.fstatvfs(fd)
    return found.f_bavail * found.f_frsize


def _group(subvolume_id: int) -> int:
    return btrfs.qgroup_id(1, subvolume_id)


def _shown(group: int) -> str:
    return f"1/{group & 0xFFFFFFFF}"


def _make_writable(fd: int, number: int) -> None:
    subvolume_fd = btrfs.open_subvolume(fd, number)
    try:
        btrfs.make_writable(subvolume_fd)
    finally:
        os.close(subvolume_fd)


def _listed(dir_fd: int) -> list[str]:
    fd = os.open(".", _DIRECTORY, dir_fd=dir_fd)  # a listing has a position, which descriptors share
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)


def _or_none(read: Callable[[], list[int]]) -> list[int]:
    """Give what is read of the quota tree; nothing where quotas are off."""
    try:
        return read()
    except FileNotFoundError:
        return []


@contextmanager
def _tolerated(*numbers: int) -> Iterator[None]:
    """Let some errnos be as good as success."""
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise
