"""Operations on volumes that their filesystem holds to a size, as the matrix disturbs them: no limit is left behind.

The subject and the sibling are subvolumes of a btrfs.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from provisioner import records
from provisioner.linux import btrfs
from tests.chaos import operations, starts
from tests.chaos.operations import SUBJECT_BYTES, Base
from tests.chaos.world import World, freed, wait_until
from tests.support.provisioned import MIB, unmount_below
from tests.support.tables import quota_groups

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from provisioner.assembly import Provisioner
    from tests.chaos.scenario import Operation

_CHUNK = bytes(MIB // 4)
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
            wait_until(lambda: _is_alone(world, provisioner, fd), f"more than the sibling: {_table(fd)}")

    def clean(self, place: Path) -> None:
        """Destroy subvolumes by request: a mere rmdir would leave their groups."""
        unmount_below(place)
        _raze(place)
        super().clean(place)


class Create(Limited, operations.Create):
    """CreateVolume."""


class Expand(Limited, operations.Expand):
    """ControllerExpandVolume."""


class Delete(Limited, operations.Delete):
    """DeleteVolume of one that its tenant has filled, with subvolumes nested in it."""

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

    only = r"^ioctl|/begun|/freed|subvolume-"  # the others are those of any start

    def prepare(self, place: Path) -> Operation:
        """Leave a bit of everything, then what only limits leave."""
        starting = super().prepare(place)
        world = World(place)
        (world.control / "staging" / _GIVEN_UP).mkdir()
        with opened(world.control / "staging" / _GIVEN_UP) as staged:
            _leave_groups(world, staged)
        return starting


def fill_up(world: World, provisioner: Provisioner) -> None:
    """Write to the subject, in a subvolume within one nested in it, until its limit refuses."""
    inside = world.data(world.subject) / "deep"
    for name in ("outer", "inner"):
        with opened(inside) as fd:
            btrfs.create_subvolume(fd, name)
        inside /= name
    provisioner._pools.pools[0].examine()
    try:
        with (inside / "full").open("xb", buffering=0) as file:
            for _ in range(SUBJECT_BYTES // len(_CHUNK) + 1):  # the last but one may be cut short
                file.write(_CHUNK)
    except OSError as error:
        if error.errno != errno.EDQUOT:
            raise
    else:
        raise AssertionError("nothing refused what is too much")


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
    """Give the subvolume of the volume that nobody speaks of."""
    return records.decode((world.control / "volumes/sibling/volume.json").read_bytes()).subvolume_id


def _group(number: int) -> int:
    return btrfs.qgroup_id(1, number)


def _table(fd: int) -> list[int]:
    """List what the disk's tables hold."""
    return sorted([*btrfs.subvolumes_from(fd, btrfs.BTRFS_FIRST_FREE_OBJECTID), *quota_groups(fd)])


def _is_alone(world: World, provisioner: Provisioner, fd: int) -> bool:
    """Tell whether the sibling alone has limits."""
    provisioner._pools.pools[0].examine()
    sibling = _sibling(world)
    return _table(fd) == sorted([sibling, _TOP, sibling, _group(sibling)])


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


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Hold a directory open."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)
