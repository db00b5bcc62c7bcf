"""What is answered OK after a process that died before its sync survives a power cut all the same.

The cuts after each acknowledged call are tests/chaos's; here a restart lies in between.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from provisioner.disk import Disk
from provisioner.errors import NotDurable, VolumeNotFound
from provisioner.identity import CONTROL, init_pool
from provisioner.model import CapacityRange
from provisioner.settings import Settings
from provisioner.trash import Trash
from tests.support.filesystems import LOOP_KINDS
from tests.support.powercut import PowerDisk, power_disk
from tests.support.provisioned import MIB, PATIENT, running, settings_for, wanted


@pytest.fixture(params=LOOP_KINDS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PowerDisk]:
    """A filesystem of each kind in turn whose power can be cut."""
    with power_disk(request.param, tmp_path) as disk:
        yield disk


@pytest.fixture
def settings(disk: PowerDisk) -> Settings:
    """A pool on it with one volume, all of it safe."""
    settings = settings_for(disk.path)
    with running(settings) as provisioner:
        provisioner.volumes.create(wanted("old"), PATIENT)
    os.sync()
    return settings


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    """Give what changes for a while what cannot be had otherwise: a sync that fails once, a death before it."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@contextmanager
def failing_syncs(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every sync of a folder fail, as the death of the process would."""

    def fail(_: Disk, folder: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), folder)

    with patch.context() as patched:
        patched.setattr(Disk, "_fsync", fail)
        with pytest.raises(NotDurable, match="cannot be synced"):
            yield


def test_a_created_volume_stays(disk: PowerDisk, settings: Settings, patch: pytest.MonkeyPatch) -> None:
    with running(settings) as first, failing_syncs(patch):
        first.volumes.create(wanted("vol"), PATIENT)
    with running(settings) as second:
        volume = second.volumes.create(wanted("vol"), PATIENT)
        disk.cut()
    disk.revive()
    with running(settings) as third:
        assert third.volumes.get(volume.volume_id) == volume


def test_an_expanded_volume_stays_expanded(disk: PowerDisk, settings: Settings, patch: pytest.MonkeyPatch) -> None:
    with running(settings) as first:
        (volume,) = first.volumes.list(0, "").volumes
        with failing_syncs(patch):
            first.volumes.expand(volume.volume_id, CapacityRange(4 * MIB), None, PATIENT)
    with running(settings) as second:
        assert second.volumes.get(volume.volume_id).capacity_bytes == 4 * MIB
        assert second.volumes.expand(volume.volume_id, CapacityRange(4 * MIB), None, PATIENT).capacity_bytes == 4 * MIB
        disk.cut()
    disk.revive()
    with running(settings) as third:
        assert third.volumes.get(volume.volume_id).capacity_bytes == 4 * MIB


def test_a_deleted_volume_stays_deleted(disk: PowerDisk, settings: Settings, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Trash, "start", lambda _: None)  # its syncs would help
    with running(settings) as first:
        (volume,) = first.volumes.list(0, "").volumes
        with failing_syncs(patch):
            first.volumes.delete(volume.volume_id, PATIENT)
    with running(settings) as second:
        second.volumes.delete(volume.volume_id, PATIENT)
        disk.cut()
    disk.revive()
    with running(settings) as third, pytest.raises(VolumeNotFound):
        third.volumes.get(volume.volume_id)


def test_within_one_process_too_a_retry_is_ok_only_once_it_is_safe(
    disk: PowerDisk, settings: Settings, patch: pytest.MonkeyPatch
) -> None:
    with running(settings) as provisioner:
        for _ in range(2):
            with failing_syncs(patch):
                provisioner.volumes.create(wanted("vol"), PATIENT)
        volume = provisioner.volumes.create(wanted("vol"), PATIENT)
        for _ in range(2):
            with failing_syncs(patch):
                provisioner.volumes.expand(volume.volume_id, CapacityRange(4 * MIB), None, PATIENT)
        grown = provisioner.volumes.expand(volume.volume_id, CapacityRange(4 * MIB), None, PATIENT)
        disk.cut()
    disk.revive()
    with running(settings) as provisioner:
        assert provisioner.volumes.get(volume.volume_id) == grown


def test_a_new_pool_keeps_its_identity(disk: PowerDisk) -> None:
    os.sync()  # the filesystem's own beginnings
    made = init_pool(str(disk.path))
    disk.cut()
    disk.revive()
    assert made.pool_id in (disk.path / CONTROL / "pool.json").read_text()
