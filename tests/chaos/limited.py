"""Operations on volumes that their filesystem holds to a size, as the matrix disturbs them: no limit is left behind.

The subject and the sibling are what the lane's disk offers: subvolumes of a btrfs, or directories with a project.
"""

from __future__ import annotations

import errno
import os
import subprocess
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from provisioner import records
from provisioner.backends.quota import QuotaBackend
from provisioner.linux import btrfs
from provisioner.linux.fsxattr import FS_XFLAG_PROJINHERIT, get_fsxattr, set_fsxattr
from provisioner.linux.mountinfo import read_mountinfo
from provisioner.linux.quotactl import set_limits
from tests.chaos import operations, starts
from tests.chaos.operations import SUBJECT_BYTES, Base
from tests.chaos.world import World, freed, wait_until
from tests.support.limited import BOUND
from tests.support.provisioned import MIB, unmount_below
from tests.support.tables import limited_projects, quota_groups

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from provisioner.assembly import Provisioner
    from tests.chaos.scenario import Operation

_TOP = 5  # the subvolume that every btrfs has
_GIVEN_UP = "begun.0123abcd"


class Limited(Base):
    """Adds to an operation what must be true of limits."""

    def inspect(self, world: World, provisioner: Provisioner, *, done: bool) -> None:
        """Every volume has just the limit that its record tells of."""
        super().inspect(world, provisioner, done=done)  # type: ignore[safe-super]  # an operation stands between
        for volume in provisioner.volumes.list(0, "").volumes:
            assert provisioner.volumes.health(volume.volume_id).problems == ()

    def agree(self, world: World, provisioner: Provisioner) -> None:
        """The same, but what is in the trash is waited for in the next process.

        A close that was made to fail leaves its descriptor open, and what a process holds open is not freed.
        """
        world.assert_agreed(provisioner, erased=False)
        self.inspect(world, provisioner, done=True)

    def end(self, world: World, provisioner: Provisioner) -> None:
        """Once the subject is gone, the disk's tables know of the sibling alone."""
        super().end(world, provisioner)
        with opened(world.control) as fd:
            wait_until(lambda: _is_alone(world, provisioner, fd), lambda: f"more than the sibling: {_table(world, fd)}")

    def clean(self, place: Path) -> None:
        """Leave no limits to the next: a mere rmdir would leave the groups of subvolumes, or what projects may have."""
        on_btrfs = fs_type(place) == "btrfs"
        unmount_below(place)
        if on_btrfs:
            _raze(place)
        super().clean(place)
        if not on_btrfs:
            _lift_limits(place.parent)


class Create(Limited, operations.Create):
    """CreateVolume."""


class Expand(Limited, operations.Expand):
    """ControllerExpandVolume."""


class Delete(Limited, operations.Delete):
    """DeleteVolume of one that its tenant has filled, with subvolumes nested in it where that is possible."""

    def arrange(self, world: World, provisioner: Provisioner) -> None:
        """Begin with a full one."""
        super().arrange(world, provisioner)
        fill_up(world, provisioner)


class Erase(Limited, starts.Erase):
    """The erasing of such a volume."""

    def fill(self, world: World, provisioner: Provisioner) -> None:
        """Fill it."""
        super().fill(world, provisioner)
        fill_up(world, provisioner)


class Sweep(Limited, starts.Sweep):
    """The start after a crash that left limits too: of what was being built, and none where one should be."""

    only = r"^ioctl|^quotactl|/begun|/freed|subvolume-"  # the others are those of any start

    def prepare(self, place: Path) -> Operation:
        """Leave a bit of everything, then what only limits leave."""
        starting = super().prepare(place)
        world = World(place)
        (world.control / "staging" / _GIVEN_UP).mkdir()
        with opened(world.control / "staging" / _GIVEN_UP) as staged:
            if fs_type(place) == "btrfs":
                _leave_groups(world, staged)
            else:
                _leave_projects(world, staged)
        return starting


def fill_up(world: World, provisioner: Provisioner) -> None:
    """Write to the subject as a pod until its limit refuses, in the innermost subvolume where it can have some."""
    inside = world.data(world.subject) / "deep"
    if fs_type(world.place) == "btrfs":
        for name in ("outer", "inner"):
            with opened(inside) as fd:
                btrfs.create_subvolume(fd, name)
            inside /= name
        provisioner._pools.pools[0].examine()
    inside.chmod(0o777)
    too_much = [f"bs={MIB}", f"count={SUBJECT_BYTES // MIB + 1}"]
    done = subprocess.run(
        [*BOUND, "dd", "if=/dev/zero", "of=full", *too_much], cwd=inside, stderr=subprocess.PIPE, text=True, check=False
    )
    refused = {os.strerror(number) for number in (errno.EDQUOT, errno.ENOSPC)}
    assert any(reason in done.stderr for reason in refused), f"nothing refused what is too much: {done.stderr}"


def _leave_groups(world: World, staged: int) -> None:
    """Leave a subvolume in staging without a limit, a destroyed one's groups, and a sibling without its limit."""
    btrfs.create_subvolume(staged, "data")
    with opened(world.control / "staging" / _GIVEN_UP / "data") as fd:
        btrfs.qgroup_create(staged, _group(btrfs.subvolume_id_of(fd)))
    entry = world.control / "trash/freed.20200101T000000Z-0"
    entry.mkdir()
    with opened(entry) as fd:
        btrfs.create_subvolume(fd, "data")
        with opened(entry / "data") as data:
            number = btrfs.subvolume_id_of(data)
        btrfs.qgroup_create(fd, _group(number))
        btrfs.qgroup_assign(fd, number, _group(number))
        (entry / f"subvolume-{number}").mkdir()
        btrfs.destroy_subvolume(fd, "data")
        btrfs.qgroup_limit(fd, _group(_sibling(world)), None)


def _sibling(world: World) -> int:
    """Give the subvolume, or the project, of the volume that nobody speaks of."""
    record = records.decode((world.control / "volumes/sibling/volume.json").read_bytes())
    return record.subvolume_id or record.project_id


def _group(number: int) -> int:
    return btrfs.qgroup_id(1, number)


def _leave_projects(world: World, staged: int) -> None:
    """Leave a directory in staging with its project, one that was taken for nothing, and a sibling without limits."""
    sibling = _sibling(world)
    os.mkdir("data", dir_fd=staged)
    with opened(world.control / "staging" / _GIVEN_UP / "data") as fd:
        found = get_fsxattr(fd)
        set_fsxattr(fd, replace(found, projid=sibling + 7, xflags=found.xflags | FS_XFLAG_PROJINHERIT))
    for number in (sibling + 7, sibling + 8):
        set_limits(staged, number, MIB, 100)
    set_limits(staged, sibling, 0, 0)


def _table(world: World, fd: int) -> list[int]:
    """List what the disk's tables hold."""
    if fs_type(world.place) == "btrfs":
        return sorted([*btrfs.subvolumes_from(fd, btrfs.BTRFS_FIRST_FREE_OBJECTID), *quota_groups(fd)])
    return sorted(limited_projects(fd))


def _is_alone(world: World, provisioner: Provisioner, fd: int) -> bool:
    """Tell whether the sibling alone has limits, and the means knows of no other."""
    pool = provisioner._pools.pools[0]
    pool.examine()
    assert pool.known is not None
    sibling = _sibling(world)
    if fs_type(world.place) == "btrfs":
        return _table(world, fd) == sorted([sibling, _TOP, sibling, _group(sibling)])
    quota = pool.known.backends._means["quota"]
    assert isinstance(quota, QuotaBackend)
    return _table(world, fd) == [sibling] and (quota._ours, quota._leaving) == ({sibling}, set())


def _raze(place: Path) -> None:
    """Leave a btrfs as it was made."""
    with opened(place) as fd:
        numbers = list(btrfs.subvolumes_from(fd, btrfs.BTRFS_FIRST_FREE_OBJECTID))
        for number in reversed(numbers):
            btrfs.destroy_subvolume_by_id(fd, number)
        freed(fd, left=0)
        for group in quota_groups(fd):
            if group != _TOP:
                with suppress(FileNotFoundError):  # newer kernels take that of a subvolume along with it
                    btrfs.qgroup_remove(fd, group)


def _lift_limits(disk: Path) -> None:
    """Leave project quotas as they were made."""
    with opened(disk) as fd:
        for project_id in limited_projects(fd):
            set_limits(fd, project_id, 0, 0)


def fs_type(place: Path) -> str:
    """Name the filesystem of the lane."""
    return next(mount.fs_type for mount in read_mountinfo() if mount.mount_point == str(place.parent))


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Hold a directory open."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)
