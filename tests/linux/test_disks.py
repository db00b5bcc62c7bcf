"""Disks that are missing or wrong, that come late, go away and come back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner import pools
from provisioner.assembly import Provisioner
from provisioner.errors import (
    PoolUnavailable,
    ProvisionerError,
    VolumeNotFound,
)
from provisioner.identity import CONTROL, init_pool
from provisioner.model import AvailableCapacity, CapacityRange, StorageStatus, Volume
from provisioner.settings import Settings
from tests.support.disks import bind, is_reachable, pull, tree, two_pools, until, watched, with_pool
from tests.support.filesystems import tmpfs
from tests.support.provisioned import MIB, PATIENT, at, running, wanted


@pytest.fixture(autouse=True)
def _watch_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_LOOK_AGAIN_S", 0.05)


@pytest.fixture
def pool(settings: Settings) -> Path:
    """Where the pool is to be; what is mounted there is taken away after the test."""
    return Path(settings.pools[0].path)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A pool on a filesystem of its own, which `bind` brings to its path; all its mounts end with the test."""
    with tmpfs(tmp_path / "disk") as path:
        init_pool(str(path))
        yield path


def assert_away(provisioner: Provisioner, volume: Volume, said: str) -> None:
    """Nothing that concerns the pool says OK, and each answer says why."""
    volumes = provisioner.volumes
    with pytest.raises(PoolUnavailable, match=said):
        volumes.create(wanted("new"), PATIENT)
    with pytest.raises(PoolUnavailable):
        volumes.create(wanted(volume.name), PATIENT)
    for name in (volume.volume_id, f"{volume.volume_id}x"):
        with pytest.raises(PoolUnavailable):
            volumes.delete(name, PATIENT)
        with pytest.raises(PoolUnavailable):
            volumes.get(name)
        with pytest.raises(PoolUnavailable):
            volumes.expand(name, CapacityRange(2 * MIB), None, PATIENT)
    assert volumes.capacity({}, ()) == AvailableCapacity(0, 0)
    (problem,) = volumes.storage_health()
    assert problem.status is StorageStatus.UNREACHABLE
    assert said in problem.message
    (finding,) = volumes.health(volume.volume_id).problems
    assert finding.reason == "PoolUnavailable"


# -- missing and wrong from the start ---------------------------------------------------------------


@pytest.mark.parametrize("found", ["nothing", "a file", "a plain directory", "a broken link"])
def test_a_pool_that_is_not_there_is_told_and_leaves_the_others_alone(
    settings: Settings, tmp_path: Path, pool: Path, found: str
) -> None:
    both = with_pool(two_pools(settings, tmp_path), init="never")
    pool.rmdir()
    if found == "a file":
        pool.write_text("mine")
    elif found == "a plain directory":
        pool.mkdir()
    elif found == "a broken link":
        pool.symlink_to(tmp_path / "missing")
    before = tree(tmp_path / "pool")
    with running(both) as provisioner:
        volumes = provisioner.volumes
        assert volumes.ready
        with pytest.raises(PoolUnavailable, match=str(pool)):
            volumes.create(wanted("vol"), PATIENT)
        with pytest.raises(PoolUnavailable, match=str(pool)):
            volumes.list(0, "")
        with pytest.raises(PoolUnavailable, match="pools retire 0123456789abcdef"):
            volumes.delete("0123456789abcdef.vol", PATIENT)
        assert volumes.capacity({}, ()).available_bytes == 0
        (problem,) = volumes.storage_health()
        assert (problem.status, str(pool) in problem.message) == (StorageStatus.UNREACHABLE, True)
        volume = volumes.create(wanted("vol", pool="second"), PATIENT)
        assert volumes.capacity({"pool": "second"}, ()).available_bytes > 0
        volumes.delete(volume.volume_id, PATIENT)
    assert tree(tmp_path / "pool") == before


def test_a_disk_that_must_be_mounted_is_waited_for(settings: Settings, pool: Path, disk: Path) -> None:
    """Neither at the start nor later is anything made in the empty directory where it belongs."""
    with running(with_pool(settings, require_mount=True)) as provisioner:
        with pytest.raises(PoolUnavailable, match="requireMount"):
            provisioner.volumes.create(wanted("vol"), PATIENT)
        assert os.listdir(pool) == []
        bind(disk, pool)
        until(lambda: is_reachable(provisioner.volumes))
        provisioner.volumes.create(wanted("vol"), PATIENT)
    assert os.listdir(disk / CONTROL / "volumes") == ["vol"]


def test_a_blank_disk_that_comes_late_is_initialised_where_it_must_be_mounted(
    settings: Settings, pool: Path, memory: Path
) -> None:
    with running(with_pool(settings, require_mount=True)) as provisioner:
        assert not is_reachable(provisioner.volumes)
        bind(memory, pool)
        until(lambda: is_reachable(provisioner.volumes))
    assert (memory / CONTROL / "pool.json").exists()


def test_an_empty_directory_that_appears_is_not_taken_for_a_disk(settings: Settings, pool: Path, disk: Path) -> None:
    """Without requireMount nobody can tell it from the place where the disk will be in a moment."""
    pool.rmdir()
    with running(settings) as provisioner:
        pool.mkdir()
        until(lambda: "holds no" in provisioner.volumes.storage_health()[0].message)
        assert os.listdir(pool) == []
        bind(disk, pool)
        until(lambda: is_reachable(provisioner.volumes))


@pytest.mark.parametrize("name", ["volumes", "staging", "trash"])
def test_a_pool_whose_folders_lie_on_several_disks_is_refused(
    settings: Settings, pool: Path, memory: Path, name: str
) -> None:
    """Volumes are committed and deleted by renames, which lead to no other mount."""
    init_pool(str(pool))
    bind(memory, pool / CONTROL / name)
    with running(settings) as provisioner, pytest.raises(PoolUnavailable, match=f"{name}: Invalid cross-device link"):
        provisioner.volumes.create(wanted("vol"), PATIENT)
    assert os.listdir(memory) == []


# -- going and coming while it is served ------------------------------------------------------------


@pytest.mark.parametrize("require_mount", [False, True])
def test_a_disk_that_goes_and_comes_back(settings: Settings, pool: Path, disk: Path, require_mount: bool) -> None:
    bind(disk, pool)
    with running(with_pool(settings, require_mount=require_mount)) as provisioner:
        volumes = provisioner.volumes
        volume = volumes.create(wanted("vol"), PATIENT)
        before = tree(disk / CONTROL / "volumes")
        pull(pool)
        assert_away(provisioner, volume, "is its disk mounted")
        assert volumes.list(0, "").volumes == [volume]  # a list must not become shorter
        (unwell,) = volumes.list_health(0, "").volumes
        assert unwell.volume_id == volume.volume_id
        until(watched(provisioner))
        assert os.listdir(pool) == [], "made on the disk below"
        assert tree(disk / CONTROL / "volumes") == before
        bind(disk, pool)
        until(lambda: is_reachable(volumes))
        assert volumes.get(volume.volume_id) == volume
        volumes.delete(volume.volume_id, PATIENT)
        with pytest.raises(VolumeNotFound):
            volumes.get(volume.volume_id)
    assert os.listdir(disk / CONTROL / "volumes") == []


def test_publications_outlive_the_going_of_a_disk(settings: Settings, pool: Path, disk: Path, targets: Path) -> None:
    bind(disk, pool)
    with running(settings) as provisioner:
        volume = provisioner.volumes.create(wanted("vol"), PATIENT)
        for name in ("a", "b"):
            provisioner.publishing.publish(at(volume.volume_id, targets / name), PATIENT)
        pull(pool)
        (targets / "a" / "file").write_text("still there")
        provisioner.publishing.unpublish(volume.volume_id, str(targets / "a"), PATIENT)
        with pytest.raises(PoolUnavailable):
            provisioner.publishing.publish(at(volume.volume_id, targets / "a"), PATIENT)
        with pytest.raises(PoolUnavailable):
            provisioner.publishing.statistics(volume.volume_id, str(targets / "b"))
        bind(disk, pool)
        until(lambda: is_reachable(provisioner.volumes))
        provisioner.publishing.publish(at(volume.volume_id, targets / "b"), PATIENT)
        with pytest.raises(ProvisionerError, match=f"published at {targets}/b"):
            provisioner.volumes.delete(volume.volume_id, PATIENT)
        provisioner.publishing.unpublish(volume.volume_id, str(targets / "b"), PATIENT)
    assert (disk / CONTROL / "volumes/vol/data/file").read_text() == "still there"


@pytest.mark.parametrize("other_is", ["a pool", "blank", "full of other things"])
def test_another_disk_over_the_path_is_not_used(
    settings: Settings, pool: Path, disk: Path, memory: Path, other_is: str
) -> None:
    if other_is == "a pool":
        init_pool(str(memory))
    elif other_is == "full of other things":
        (memory / "theirs").write_text("mine")
    with running(settings) as provisioner:
        volume = provisioner.volumes.create(wanted("vol"), PATIENT)
        before = tree(memory)
        bind(memory, pool)
        said = "another disk is mounted" if other_is == "a pool" else "is its disk mounted"
        for _ in range(2):
            assert_away(provisioner, volume, said)
            until(watched(provisioner))
        assert tree(memory) == before
        pull(pool)
        until(lambda: is_reachable(provisioner.volumes))
        assert provisioner.volumes.get(volume.volume_id) == volume
    assert disk.exists()


def test_a_disk_that_comes_anew_while_a_call_runs_is_taken_after_it(settings: Settings, pool: Path, disk: Path) -> None:
    bind(disk, pool)

    class Remounting:
        def check(self) -> None:
            pull(pool)
            bind(disk, pool)
            until(watched(provisioner))

    descriptors = len(os.listdir("/proc/self/fd"))
    with running(settings) as provisioner:
        provisioner.volumes.create(wanted("during"), Remounting())
        until(lambda: is_reachable(provisioner.volumes))
        assert [volume.name for volume in provisioner.volumes.list(0, "").volumes] == ["during"]
        pull(pool)
    assert len(os.listdir("/proc/self/fd")) == descriptors
