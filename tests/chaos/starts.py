"""What the provisioner does by itself: start, sweep, make an empty directory a pool, erase."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from provisioner.assembly import Provisioner
from provisioner.backends.choosing import Backends
from provisioner.disk import Disk
from provisioner.errors import PoolUnavailable, Unavailable, VolumeInUse, VolumeQuarantined
from provisioner.faults import disk_faults
from provisioner.pace import Pace
from provisioner.trash import Trash
from tests.chaos.operations import SUBJECT_BYTES, Base, sizes
from tests.chaos.world import World, fill, freed, wait_until
from tests.support.provisioned import PATIENT, at

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.chaos.scenario import Operation


class _Starting:
    """The start of a provisioner; done again, it is stopped and started, as whoever watches it would."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._provisioner: Provisioner | None = None

    def __call__(self) -> str:
        if self._provisioner:
            self._provisioner.stop()
        self._provisioner = Provisioner(self._world.settings)
        self._provisioner.lock()
        self._provisioner.start()
        reason = self._provisioner._pools.pools[0].problem()
        if reason:
            raise PoolUnavailable(reason)
        return self._provisioner._pools.pools[0].pool_id

    def agree(self) -> None:
        """What was published cannot be deleted, whatever the start could not see."""
        assert self._provisioner is not None
        for name in os.listdir(self._world.control / "volumes"):
            with pytest.raises((VolumeInUse, VolumeQuarantined)):
                self._provisioner.volumes.delete(f"{self._world.pool_id}.{name}", PATIENT)


class Sweep(Base):
    """The start after a crash that left a bit of everything."""

    def prepare(self, place: Path) -> Operation:
        """Leave half a volume, half a record, a deleted volume, half of one, and a hint of a mount that is gone."""
        world = World(place)
        with world.running() as provisioner:
            volume_id = world.make(provisioner, "sibling")
            world.make(provisioner, "subject", SUBJECT_BYTES)
            provisioner.publishing.publish(at(volume_id, world.targets / "sibling"), PATIENT)
            # The start reads it: each one that is prepared shall find it.
            wait_until((world.control / "usage.json").exists, "nothing is measured")
        (world.control / "staging/half.0123abcd/data").mkdir(parents=True)
        (world.control / "staging/subject.0123abcd").write_text('{"schema": 1')
        os.rename(world.control / "volumes/subject", world.control / "trash/subject.20200101T000000Z-0")
        (world.control / "trash/other.20200101T000000Z-0/data/deep").mkdir(parents=True)
        (world.control / f"published/subject@{'0' * 32}.7").touch()
        return _Starting(world)

    def act(self, world: World, provisioner: Provisioner) -> str:
        """Be started: it is done."""
        del provisioner
        return world.pool_id

    def inspect(self, world: World, provisioner: Provisioner, *, done: bool) -> None:
        """The deleted stay deleted, the sibling stays, whether that start ended or not."""
        del done
        assert sizes(provisioner) == {}
        world.assert_published()


class Init(Sweep):
    """The first start, on an empty directory that `init: if-empty` makes a pool."""

    commit = r"^renameat2.*\"pool.json\""

    def prepare(self, place: Path) -> Operation:
        """Begin with an empty directory."""
        return _Starting(World(place))

    def look(self, world: World) -> None:
        """Nothing else was made."""
        assert os.listdir(world.place / "pool") in ([], [".csi-local-path"])

    def inspect(self, world: World, provisioner: Provisioner, *, done: bool) -> None:
        """A pool that works."""
        del done
        if not os.listdir(world.control / "volumes"):
            volume_id = world.make(provisioner, "sibling")
            provisioner.publishing.publish(at(volume_id, world.targets / "sibling"), PATIENT)


class Erasing:
    """The eraser and the look after limits, step by step; where the disk frees later, it is waited for between."""

    def __init__(self, world: World) -> None:
        self.world = world
        pool = world.settings.pools[0]
        self._disk = Disk(pool, readonly=True)
        self._backends = Backends(pool, self._disk)
        self._trash = Trash(
            self._disk.trash_fd,
            lambda _entry: None,
            os.sync,
            Pace(work_s=3600),
            dismantle=self._backends.dismantle,
        )

    def __call__(self) -> str:
        with disk_faults("erase"):
            self._erase()
            if self._disk.fs_type == "btrfs":
                self.in_another_thread(lambda: freed(self._disk.volumes_fd))
                self._erase()
            self._backends.tend()
        return "erased"

    def _erase(self) -> None:
        self._trash.erase_all()
        if self._trash.obstacles:
            raise Unavailable(f"not erased: {self._trash.obstacles}")

    def in_another_thread(self, wait: Callable[[], None]) -> None:
        """Wait in a thread that nobody traces: how many calls that takes is chance."""
        waiting = threading.Thread(target=wait)
        waiting.start()
        waiting.join()

    def agree(self) -> None:
        """Nothing is left; but what a process holds open, as where its close failed, btrfs frees after its end."""
        assert self._disk.fs_type == "btrfs" or self._trash.entries() == []


class Erase(Base):
    """The erasing of deleted volumes, which the provisioner does in a thread of its own."""

    eraser = Erasing

    def prepare(self, place: Path) -> Operation:
        """Leave a deleted volume with directories, and let nobody erase it."""
        world = World(place)
        with world.running() as provisioner:
            volume_id = world.make(provisioner, "sibling")
            provisioner.publishing.publish(at(volume_id, world.targets / "sibling"), PATIENT)
            self.make_subject(world, provisioner)
        os.rename(world.control / "volumes/subject", world.control / "trash/subject.20200101T000000Z-0")
        return self.eraser(world)

    def make_subject(self, world: World, provisioner: Provisioner) -> None:
        """Make the subject, and fill it."""
        world.make(provisioner, "subject", SUBJECT_BYTES)
        self.fill(world, provisioner)

    def fill(self, world: World, provisioner: Provisioner) -> None:
        """Put more into the subject than every volume has."""
        del provisioner
        fill(world.data(world.subject) / "deep", "nested")

    def look(self, world: World) -> None:
        """What is still there is whole enough to tell how much room it holds: the record goes last."""
        for entry in (world.control / "trash").iterdir():
            assert (entry / "volume.json").exists() or os.listdir(entry) == [], os.listdir(entry)

    def act(self, world: World, provisioner: Provisioner) -> str:
        """Have it erased: `assert_swept` waited for it."""
        del world, provisioner
        return "erased"

    def inspect(self, world: World, provisioner: Provisioner, *, done: bool) -> None:
        """The sibling stays."""
        del done
        assert sizes(provisioner) == {}
        world.assert_published()
