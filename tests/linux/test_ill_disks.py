"""Disks that are read-only, full or dead: what can be done on them still is, the rest says why not."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from provisioner import pools
from provisioner.assembly import Provisioner
from provisioner.disk import Disk
from provisioner.errors import (
    NotDurable,
    OutOfCapacity,
    PoolUnavailable,
    ProvisionerError,
    TargetOccupied,
    VolumeNotFound,
)
from provisioner.identity import CONTROL, init_pool
from provisioner.linux.mount import MS_BIND, mount
from provisioner.model import CapacityRange, StorageStatus
from provisioner.settings import Settings
from tests.support.disks import full, pull, readonly, two_pools, until, watched, with_pool
from tests.support.filesystems import LOOP_KINDS, loop_filesystem, tmpfs
from tests.support.powercut import power_disk
from tests.support.provisioned import MIB, PATIENT, at, running, settings_for, wanted


@pytest.fixture(autouse=True)
def _watch_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_LOOK_AGAIN_S", 0.05)


@pytest.fixture
def pool(settings: Settings) -> Path:
    """Where the pool is to be; what is mounted there is taken away after the test."""
    return Path(settings.pools[0].path)


def test_a_read_only_disk_can_be_looked_at_and_published(settings: Settings, pool: Path, targets: Path) -> None:
    with running(settings) as provisioner:
        volume = provisioner.volumes.create(wanted("vol"), PATIENT)
    with readonly(pool), running(settings) as provisioner:
        volumes = provisioner.volumes
        assert volumes.get(volume.volume_id) == volume
        assert volumes.create(wanted("vol"), PATIENT) == volume
        for name in ("new", "newer"):
            with pytest.raises(ProvisionerError, match="read-only") as caught:
                volumes.create(wanted(name), PATIENT)
            assert isinstance(caught.value, OutOfCapacity | PoolUnavailable)
        with pytest.raises(ProvisionerError, match="ead-only") as caught:
            volumes.expand(volume.volume_id, CapacityRange(2 * MIB), None, PATIENT)
        with pytest.raises(PoolUnavailable, match="Read-only"):
            volumes.delete(volume.volume_id, PATIENT)
        assert volumes.get(volume.volume_id) == volume
        assert volumes.capacity({}, ()).available_bytes == 0
        (problem,) = volumes.storage_health()
        assert problem.reason == "ReadOnly"
        provisioner.publishing.publish(at(volume.volume_id, targets / "t"), PATIENT)
        provisioner.publishing.unpublish(volume.volume_id, str(targets / "t"), PATIENT)


def test_a_read_only_disk_without_a_lock_file_keeps_no_other_from_being_served(
    settings: Settings, tmp_path: Path, pool: Path
) -> None:
    init_pool(str(pool))
    with readonly(pool), running(two_pools(settings, tmp_path)) as provisioner:
        with pytest.raises(PoolUnavailable, match="cannot be locked"):
            provisioner.volumes.create(wanted("vol"), PATIENT)
        provisioner.volumes.create(wanted("vol", pool="second"), PATIENT)


def test_a_read_only_empty_directory_becomes_no_pool(settings: Settings, pool: Path) -> None:
    with readonly(pool), running(settings) as provisioner, pytest.raises(PoolUnavailable, match="Read-only"):
        provisioner.volumes.create(wanted("vol"), PATIENT)
    assert os.listdir(pool) == []


@pytest.mark.parametrize("kind", LOOP_KINDS)
@pytest.mark.parametrize("overcommit", [1.0, 1000.0])
def test_a_full_disk(tmp_path: Path, kind: str, overcommit: float) -> None:
    """With overcommit the promise is given, and it is the disk itself that says no."""
    with loop_filesystem(kind, tmp_path) as filesystem:
        settings = settings_for(filesystem.path, overcommit=overcommit)
        control, targets = filesystem.path / "pool" / CONTROL, filesystem.path / "targets"
        with tmpfs(targets), running(settings) as provisioner:
            volumes = provisioner.volumes
            volume = volumes.create(wanted("vol"), PATIENT)
            with full(filesystem.path):
                for i in range(3):
                    with pytest.raises(OutOfCapacity, match=r"full|can promise"):
                        _create_many(provisioner, f"new{i}")
                whole = {found.name for found in volumes.list(0, "").volumes}
                assert set(os.listdir(control / "volumes")) == whole
                provisioner.publishing.publish(at(volume.volume_id, targets / "t"), PATIENT)
                provisioner.publishing.unpublish(volume.volume_id, str(targets / "t"), PATIENT)
                volumes.delete(volume.volume_id, PATIENT)
                assert "vol" not in os.listdir(control / "volumes")
                with pytest.raises(VolumeNotFound):
                    volumes.get(volume.volume_id)
            until(lambda: os.listdir(control / "trash") == [])
            volumes.create(wanted("vol"), PATIENT)


def _create_many(provisioner: Provisioner, prefix: str) -> None:
    """Create until the last corner of a full disk is used up; small files may live in inodes that are there."""
    for i in range(20000):
        provisioner.volumes.create(wanted(f"{prefix}.{i}"), PATIENT)


def test_a_restart_on_a_full_disk(settings: Settings, pool: Path, tmp_path: Path) -> None:
    with tmpfs(pool, MIB):
        with running(settings) as provisioner:
            volume = provisioner.volumes.create(wanted("vol", 4096), PATIENT)
        with full(pool), running(settings) as provisioner:
            provisioner.volumes.delete(volume.volume_id, PATIENT)
            assert provisioner.volumes.list(0, "").volumes == []
    assert tmp_path.exists()


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_dead_disk(tmp_path: Path, settings: Settings, targets: Path, kind: str) -> None:
    """Nothing says OK to what it cannot do, and pods can still be taken away."""
    with power_disk(kind, tmp_path) as disk, running(with_pool(settings, path=str(disk.path))) as provisioner:
        volumes = provisioner.volumes
        idle, used = (volumes.create(wanted(name), PATIENT) for name in ("idle", "used"))
        provisioner.publishing.publish(at(used.volume_id, targets / "t"), PATIENT)
        disk.cut()
        with pytest.raises(PoolUnavailable):
            volumes.create(wanted("new"), PATIENT)
        with pytest.raises((PoolUnavailable, NotDurable)):
            volumes.create(wanted("idle"), PATIENT)
        for _ in range(2):
            with pytest.raises((PoolUnavailable, NotDurable)):
                volumes.delete(idle.volume_id, PATIENT)
        with pytest.raises((PoolUnavailable, NotDurable)):
            volumes.expand(idle.volume_id, CapacityRange(2 * MIB), None, PATIENT)
        assert [volume.name for volume in volumes.list(0, "").volumes] == ["idle", "used"]
        for _ in range(2):
            assert volumes.capacity({}, ()).available_bytes == 0
            assert [problem.reason for problem in volumes.storage_health()] in (["PoolUnavailable"], ["WritesFail"])
            until(watched(provisioner))
        for _ in range(2):
            provisioner.publishing.unpublish(used.volume_id, str(targets / "t"), PATIENT)
            assert os.listdir(targets) == []


def test_a_disk_that_was_ill_is_well_again(provisioner: Provisioner, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = provisioner.volumes

    def fail(_: Disk, folder: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), folder)

    with monkeypatch.context() as patched:
        patched.setattr(Disk, "_fsync", fail)
        with pytest.raises(NotDurable):
            volumes.create(wanted("vol"), PATIENT)
        until(watched(provisioner))
        assert volumes.capacity({}, ()).available_bytes == 0
        (problem,) = volumes.storage_health()
        assert (problem.status, problem.reason) == (StorageStatus.DEGRADED, "WritesFail")
        assert "volumes cannot be synced: Input/output error" in problem.message
    until(lambda: volumes.storage_health() == [])
    assert volumes.capacity({}, ()).available_bytes > 0
    assert volumes.create(wanted("vol"), PATIENT).name == "vol"


@pytest.mark.parametrize("kind", ["xfs"])
def test_a_dead_disk_of_strangers_at_a_target_is_left_alone(
    tmp_path: Path, provisioner: Provisioner, targets: Path, kind: str
) -> None:
    volume = provisioner.volumes.create(wanted("vol"), PATIENT)
    (targets / "t").mkdir()
    with power_disk(kind, tmp_path) as disk:
        mount(disk.path, targets / "t", flags=MS_BIND)
        disk.cut()
        with pytest.raises(TargetOccupied, match="left alone"):
            provisioner.publishing.unpublish(volume.volume_id, str(targets / "t"), PATIENT)
        pull(targets / "t")
