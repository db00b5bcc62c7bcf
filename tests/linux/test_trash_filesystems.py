"""The trash with its thread, on real filesystems and with a mount in the way."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from provisioner.linux.mount import MS_BIND, UMOUNT_NOFOLLOW, mount, umount2
from provisioner.pace import Pace
from provisioner.trash import Trash
from tests.support.trees import directory_fd, make_deep, make_wide

PATIENCE_S = 60


@dataclass
class Bench:
    """A trash with its thread, and who is told of erased entries."""

    folder: Path
    erased: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.source, self.path = self.folder / "volumes", self.folder / "trash"
        for path in (self.source, self.path):
            path.mkdir()
        self.changed = threading.Condition()
        self.trash = self.open(Pace(work_s=float("inf")))

    def open(self, pace: Pace) -> Trash:
        """Open the trash, as a new process does."""
        with directory_fd(self.path) as fd:
            return Trash(fd, self.tell, os.sync, pace)

    def tell(self, entry: str) -> None:
        """Be told that an entry is gone."""
        with self.changed:
            self.erased.append(entry)
            self.changed.notify_all()

    def wait_for(self, *entries: str) -> None:
        """Wait until all these were erased."""
        with self.changed:
            assert self.changed.wait_for(lambda: set(entries) <= set(self.erased), PATIENCE_S)

    def volume(self, name: str) -> Path:
        """Make a volume and give its data."""
        data = self.source / name / "data"
        data.mkdir(parents=True)
        (self.source / name / "volume.json").write_text("{}")
        return data

    def delete(self, name: str) -> str:
        """Send a volume to the trash and have it erased."""
        with directory_fd(self.source) as fd:
            entry = self.trash.take(fd, name)
        self.trash.wake(entry)
        return entry


@pytest.fixture
def bench(folder: Path) -> Iterator[Bench]:
    """Give a trash on each kind of filesystem, with its thread at work."""
    made = Bench(folder)
    made.trash.start()
    yield made
    made.trash.stop()


def test_volumes_are_erased_behind_our_back(bench: Bench) -> None:
    make_deep(bench.volume("deep"), 300)
    make_wide(bench.volume("wide"), 300)
    bench.wait_for(bench.delete("deep"), bench.delete("wide"))
    assert os.listdir(bench.path) == []
    assert bench.trash.obstacles == {}


def test_a_mount_in_a_deleted_volume_is_reported_and_others_go_on(bench: Bench, tmp_path: Path) -> None:
    """The rename into the trash takes it along."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    (bench.volume("busy") / "a" / "mnt").mkdir(parents=True)
    bench.volume("free")
    mount(precious, bench.source / "busy" / "data" / "a" / "mnt", flags=MS_BIND)
    busy = bench.delete("busy")
    bench.wait_for(bench.delete("free"))
    place = bench.path / busy / "data" / "a" / "mnt"
    while not bench.trash.obstacles:
        time.sleep(0.001)
    found = bench.trash.obstacles[busy]
    assert [(obstacle.path, obstacle.errno) for obstacle in found] == [("data/a/mnt", errno.EBUSY)]
    assert (place / "file").exists()
    assert (bench.path / busy / "volume.json").exists()
    umount2(place, UMOUNT_NOFOLLOW)
    bench.trash.wake(busy)
    bench.wait_for(busy)
    assert bench.trash.obstacles == {}
    assert os.listdir(precious) == ["file"]


def test_it_stops_at_once_in_the_middle_of_much_and_the_next_one_goes_on(bench: Bench) -> None:
    make_wide(bench.volume("much"), 3000)
    slow = bench.open(Pace(work_s=0.0, rest=1000.0))  # a minute in all
    bench.trash.stop()
    bench.trash, entry = slow, ""
    slow.start()
    entry = bench.delete("much")
    data = bench.path / entry / "data"
    while len(os.listdir(data)) == 3000:
        time.sleep(0.001)
    began = time.monotonic()
    slow.stop()
    assert not slow._thread.is_alive()
    assert time.monotonic() - began < PATIENCE_S
    assert 0 < len(os.listdir(data)) < 3000
    assert bench.erased == []
    bench.trash = bench.open(Pace(work_s=float("inf")))
    bench.trash.start()
    bench.wait_for(entry)
