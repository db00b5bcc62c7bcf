"""Ids of subvolumes that btrfs gives a second time: after a mount it goes on behind the newest one that is there."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from provisioner.linux import btrfs
from provisioner.model import Volume
from tests.support.disks import until
from tests.support.filesystems import make_image, mounted
from tests.support.limited import MIB, run_as_pod, write_as_pod
from tests.support.means import SIMPLE, SUBVOLUME, Means, Served, serving
from tests.support.tables import quota_groups
from tests.support.trees import directory_fd

SIZE = 32 * MIB


class Bench:
    """A btrfs that can be mounted anew, and an entry of its pool's trash that is kept aside meanwhile."""

    def __init__(self, means: Means, tmp_path: Path) -> None:
        self._means, self._tmp_path = means, tmp_path
        self._image = tmp_path / "image"
        self.path = tmp_path / "btrfs"
        self.aside = self.path / "aside"
        make_image("btrfs", self._image, means.size)

    @contextmanager
    def serving(self) -> Iterator[Served]:
        """Mount it and serve its pool."""
        with (
            mounted("btrfs", self._image, self.path, self._means.options),
            serving(self._means, self._tmp_path) as served,
        ):
            yield served

    def destroy(self, served: Served, volume: Volume) -> int:
        """Take a volume apart as the eraser does, and wait until it is freed; its groups are left. Gives its id."""
        os.rename(served.control / "volumes" / volume.name, self.aside)
        number = number_of(self.aside / "data")
        assert not dismantle(served, self.aside)
        self.wait_until_freed()
        return number

    def wait_until_freed(self) -> None:
        """Wait until all destroyed subvolumes are freed, and that is safe on the disk."""
        with directory_fd(self.path) as fd:
            until(lambda: all(btrfs.parent_of(fd, number) for number in btrfs.subvolumes_from(fd, 256)))
        os.sync()

    def erase(self, served: Served) -> None:
        """Let the eraser have the entry."""
        os.rename(self.aside, served.control / "trash/old.20200101T000000Z-0")
        contents = served.provisioner._pools.pools[0].known
        assert contents is not None
        contents.trash.wake()
        until(lambda: os.listdir(served.control / "trash") == [])


@pytest.fixture(params=[SUBVOLUME, SIMPLE], ids=lambda means: means.name)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    """Give one of each way of counting."""
    return Bench(request.param, tmp_path)


def number_of(path: Path) -> int:
    """Give the id of the subvolume that a path lies in."""
    with directory_fd(path) as fd:
        return btrfs.subvolume_id_of(fd)


def dismantle(served: Served, entry: Path) -> bool:
    """Take an entry apart as the eraser does, once."""
    contents = served.provisioner._pools.pools[0].known
    assert contents is not None
    with directory_fd(entry) as fd:
        return contents.backends.dismantle(fd)


def test_a_volume_keeps_the_limit_that_has_the_id_of_one_in_the_trash(bench: Bench) -> None:
    with bench.serving() as served:
        number = bench.destroy(served, served.create("old", SIZE))
    with bench.serving() as served:
        volume = served.create("new", SIZE)
        target = served.publish(volume)
        assert number_of(target) == number
        bench.erase(served)
        assert served.provisioner.volumes.health(volume.volume_id).problems == ()
        found = write_as_pod(target / "file", 2 * SIZE)
        assert (found.errno, found.bytes <= SIZE) == (errno.EDQUOT, True)


def test_a_nested_one_with_such_an_id_counts_in_its_volume_and_no_group_is_left(bench: Bench) -> None:
    with bench.serving() as served:
        target = served.publish(served.create("tenant", SIZE))
        tenant = number_of(target)
        number = bench.destroy(served, served.create("old", SIZE))
    with bench.serving() as served, directory_fd(bench.path) as fd:
        target = served.publish(served.provisioner.volumes.list(0, "").volumes[0])
        run_as_pod(target, "btrfs", "subvolume", "create", "nested")
        assert number_of(target / "nested") == number
        until(lambda: btrfs.qgroup_parents(fd, number) == [btrfs.qgroup_id(1, tenant)])
        served.provisioner._pools.pools[0].examine()
        bench.erase(served)
        assert btrfs.qgroup_parents(fd, number) == [btrfs.qgroup_id(1, tenant)]
        assert btrfs.qgroup_id(1, number) not in quota_groups(fd)
        assert write_as_pod(target / "nested/file", 2 * SIZE).errno == errno.EDQUOT


def test_nobody_counts_in_a_new_volumes_group_who_was_in_it_before(bench: Bench) -> None:
    """As what an earlier volume left there: another volume may have the id of one that was nested in it."""
    with bench.serving() as served, directory_fd(bench.path) as fd:
        neighbour = served.publish(served.create("neighbour", SIZE))
        number = max(btrfs.subvolumes_from(fd, 256)) + 1
        group = btrfs.qgroup_id(1, number)
        btrfs.qgroup_create(fd, group)
        btrfs.qgroup_assign(fd, number_of(neighbour), group)
        target = served.publish(served.create("new", SIZE))
        assert number_of(target) == number
        assert btrfs.qgroup_members(fd, group) == [number]
        assert write_as_pod(neighbour / "file", SIZE * 3 // 4).errno == 0
        assert write_as_pod(target / "file", SIZE * 3 // 4).errno == 0
