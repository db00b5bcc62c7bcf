"""Calls of many threads while their disk goes and comes: only the errors that say so, and nothing lost or left."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from provisioner import pools
from provisioner.assembly import Provisioner
from provisioner.errors import OperationPending, OutOfCapacity, ProvisionerError, Unavailable, VolumeNotFound
from provisioner.identity import CONTROL, init_pool
from provisioner.model import CapacityRange
from provisioner.settings import Settings
from provisioner.survey import survey
from tests.support.disks import bind, is_reachable, pull, until
from tests.support.filesystems import tmpfs
from tests.support.provisioned import MIB, PATIENT, at, running, wanted

THREADS = 6
ROUNDS = 15
EXPECTED = (Unavailable, OperationPending, VolumeNotFound, OutOfCapacity)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A pool on a filesystem of its own."""
    with tmpfs(tmp_path / "disk", 256 * MIB) as path:
        init_pool(str(path))
        yield path


class Caller:
    """One thread's life of one volume, over and over; `acknowledged` is whether it exists by the last OK."""

    def __init__(self, provisioner: Provisioner, number: int, target: Path) -> None:
        self.name = f"v{number}"
        self._provisioner = provisioner
        self._random = random.Random(number)  # noqa: S311  no secret
        self._target = str(target / self.name)
        self.volume_id = ""
        self.acknowledged = False
        self.uncertain = False
        self.served = 0

    def run(self, ending: threading.Event) -> None:
        """Call until the end; every error but the expected ones ends the test."""
        while not ending.is_set():
            try:
                self._random.choice([self._create, self._create, self._delete, self._look, self._publish])()
            except EXPECTED:
                continue
            self.served += 1

    def _create(self) -> None:
        self.uncertain = True
        volume = self._provisioner.volumes.create(wanted(self.name), PATIENT)
        self.volume_id, self.acknowledged, self.uncertain = volume.volume_id, True, False

    def _delete(self) -> None:
        if self.volume_id:
            self.uncertain = True
            self._provisioner.volumes.delete(self.volume_id, PATIENT)
            self.acknowledged = self.uncertain = False

    def _look(self) -> None:
        volumes = self._provisioner.volumes
        volumes.list(0, "")
        volumes.list_health(0, "")
        volumes.storage_health()
        volumes.capacity({}, ())
        if self.volume_id:
            volumes.get(self.volume_id)
            volumes.expand(self.volume_id, CapacityRange(2 * MIB), None, PATIENT)

    def _publish(self) -> None:
        publishing = self._provisioner.publishing
        if self.volume_id:
            try:
                publishing.publish(at(self.volume_id, self._target), PATIENT)
                publishing.statistics(self.volume_id, self._target)
            finally:
                publishing.unpublish(self.volume_id, self._target, PATIENT)


def test_nothing_is_lost_and_nothing_unexpected_is_said(
    settings: Settings, tmp_path: Path, targets: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "_LOOK_AGAIN_S", 0.005)
    pool = tmp_path / "pool"
    bind(disk, pool)
    before = len(os.listdir("/proc/self/fd"))
    with running(settings) as provisioner, ThreadPoolExecutor(THREADS) as threads:
        ending = threading.Event()
        callers = [Caller(provisioner, number, targets) for number in range(THREADS)]
        running_calls = [threads.submit(caller.run, ending) for caller in callers]
        try:
            for _ in range(ROUNDS):
                pull(pool)
                survey(settings)
                bind(disk, pool)
                until(lambda: is_reachable(provisioner.volumes))
        finally:
            ending.set()
        for calls in running_calls:
            calls.result()
        until(lambda: is_reachable(provisioner.volumes))
        check(provisioner, callers, disk, targets)
        assert min(caller.served for caller in callers) > 0
    assert len(os.listdir("/proc/self/fd")) == before
    assert os.listdir(pool) == [CONTROL]
    pull(pool)
    assert os.listdir(pool) == [], "something was made below the disk"


def check(provisioner: Provisioner, callers: list[Caller], disk: Path, targets: Path) -> None:
    """Compare what callers were told with what is there, in memory and on the disk."""
    there = {volume.name for volume in provisioner.volumes.list(0, "").volumes}
    assert there == set(os.listdir(disk / CONTROL / "volumes"))
    for caller in callers:
        if not caller.uncertain:
            assert (caller.name in there) == caller.acknowledged
    for caller in callers:
        try:
            provisioner.volumes.delete(provisioner.volumes.create(wanted(caller.name), PATIENT).volume_id, PATIENT)
        except ProvisionerError as error:
            pytest.fail(f"{caller.name}: {error}")
    assert os.listdir(targets) == []
    until(lambda: os.listdir(disk / CONTROL / "trash") == [])
    assert os.listdir(disk / CONTROL / "published") == []
