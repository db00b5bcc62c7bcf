"""Disks that are missing, wrong, full, read-only or dead, and those that come late, go away and come back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provisioner import pools
from provisioner.assembly import Provisioner
from provisioner.errors import (
    NotDurable,
    OutOfCapacity,
    PoolUnavailable,
    ProvisionerError,
    TargetOccupied,
    VolumeConflict,
    VolumeNotFound,
)
from provisioner.identity import CONTROL, init_pool, retire
from provisioner.linux.mount import MS_BIND, mount
from provisioner.model import AvailableCapacity, CapacityRange, StorageStatus, Volume
from provisioner.pool import Pool
from provisioner.settings import Settings
from tests.support.disks import bind, full, is_reachable, pull, readonly, tree, until, with_pool
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


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A pool on a filesystem of its own, which `bind` brings to its path; all its mounts end with the test."""
    with tmpfs(tmp_path / "disk") as path:
        init_pool(str(path))
        yield path


def two_pools(settings: Settings, tmp_path: Path, **keys: object) -> Settings:
    """Add a pool named 'second' at tmp_path/second."""
    (tmp_path / "second").mkdir(exist_ok=True)
    second = with_pool(settings, name="second", path=str(tmp_path / "second"), **keys).pools[0]
    both = with_pool(settings)
    both.pools.append(second)
    return both


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


def watched(provisioner: Provisioner) -> Callable[[], bool]:
    """Give what becomes true when the watcher has gone over all pools several times more."""
    finder = provisioner._pools
    looks: list[Pool] = []
    look_again = finder._look_again

    def counted(pool: Pool) -> None:
        look_again(pool)
        looks.append(pool)

    finder._look_again = counted  # type: ignore[method-assign]  # nothing else tells what its thread did
    return lambda: len(looks) >= 4 * len(finder.pools)


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


# -- the same id twice ------------------------------------------------------------------------------


def test_an_id_that_is_found_twice_is_refused_at_both(settings: Settings, tmp_path: Path, pool: Path) -> None:
    with running(settings) as provisioner:
        volume = provisioner.volumes.create(wanted("vol"), PATIENT)
    both = two_pools(settings, tmp_path)
    shutil.copytree(pool, tmp_path / "second", dirs_exist_ok=True)
    before = tree(pool), tree(tmp_path / "second")
    with running(both) as provisioner:
        for _ in range(2):
            for name in ("default", "second"):
                with pytest.raises(PoolUnavailable, match="one is a copy") as caught:
                    provisioner.volumes.create(wanted("new", pool=name), PATIENT)
                assert str(pool) in str(caught.value)
                assert str(tmp_path / "second") in str(caught.value)
            with pytest.raises(PoolUnavailable):
                provisioner.volumes.delete(volume.volume_id, PATIENT)
            until(watched(provisioner))
        assert (tree(pool), tree(tmp_path / "second")) == before
        shutil.rmtree(tmp_path / "second")
        until(lambda: len(provisioner.volumes.storage_health()) == 1)
        assert provisioner.volumes.get(volume.volume_id) == volume


def test_a_copy_that_comes_late_is_refused_and_the_pool_goes_on(settings: Settings, tmp_path: Path, pool: Path) -> None:
    with running(two_pools(settings, tmp_path, init="never")) as provisioner:
        volume = provisioner.volumes.create(wanted("vol"), PATIENT)
        shutil.copytree(pool, tmp_path / "second", dirs_exist_ok=True)
        until(lambda: "one is a copy" in provisioner.volumes.storage_health()[0].message)
        assert provisioner.volumes.get(volume.volume_id) == volume


def test_one_directory_under_two_names_is_one_id_twice(settings: Settings, tmp_path: Path, pool: Path) -> None:
    both = two_pools(settings, tmp_path)
    init_pool(str(pool))
    mount(pool, tmp_path / "second", flags=MS_BIND)
    with running(both) as provisioner:
        for name in ("default", "second"):
            with pytest.raises(PoolUnavailable, match="one is a copy"):
                provisioner.volumes.create(wanted("new", pool=name), PATIENT)


# -- read-only, full, dead --------------------------------------------------------------------------


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
            provisioner.publishing.unpublish(used.volume_id, str(targets / "t"), PATIENT)
            assert os.listdir(targets) == []


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


# -- given up ---------------------------------------------------------------------------------------


def test_volumes_of_a_lost_pool_can_be_deleted_once_it_is_retired(
    settings: Settings, tmp_path: Path, pool: Path, disk: Path
) -> None:
    both = two_pools(settings, tmp_path)
    bind(disk, pool)
    with running(both) as provisioner:
        volume = provisioner.volumes.create(wanted("vol"), PATIENT)
        pool_id = volume.volume_id.partition(".")[0]
        pull(pool)
        for _ in range(2):
            with pytest.raises(PoolUnavailable):
                provisioner.volumes.delete(volume.volume_id, PATIENT)
        for _ in range(2):
            retire(str(tmp_path / "second"), pool_id)
            provisioner.volumes.delete(volume.volume_id, PATIENT)
        with pytest.raises(PoolUnavailable):
            provisioner.volumes.get(volume.volume_id)
    with running(with_pool(both, init="never")) as provisioner:
        provisioner.volumes.delete(volume.volume_id, PATIENT)
        with pytest.raises(PoolUnavailable, match="or, if it is gone for good, run 'csi-local-path pools retire"):
            provisioner.volumes.delete("0123456789abcdef.vol", PATIENT)
        bind(disk, pool)
        until(lambda: is_reachable(provisioner.volumes))
        assert provisioner.volumes.get(volume.volume_id) == volume, "it was retired, not erased"


def test_retiring_a_pool_that_is_there_deletes_nothing_unseen(
    settings: Settings, tmp_path: Path, pool: Path, targets: Path
) -> None:
    with running(two_pools(settings, tmp_path)) as provisioner:
        volume = provisioner.volumes.create(wanted("vol"), PATIENT)
        pool_id = volume.volume_id.partition(".")[0]
        for path in (pool, tmp_path / "second"):
            retire(str(path), pool_id)
        provisioner.publishing.publish(at(volume.volume_id, targets / "t"), PATIENT)
        with pytest.raises(ProvisionerError, match="unpublish it first"):
            provisioner.volumes.delete(volume.volume_id, PATIENT)
        provisioner.publishing.unpublish(volume.volume_id, str(targets / "t"), PATIENT)
        provisioner.volumes.delete(volume.volume_id, PATIENT)
        assert os.listdir(pool / CONTROL / "volumes") == []


def test_a_pool_that_is_refused_but_there_is_not_gone(settings: Settings, tmp_path: Path, pool: Path) -> None:
    """Two copies of it were found: that it was retired does not make a delete unseen right."""
    both = two_pools(settings, tmp_path)
    third = with_pool(settings, name="third", path=str(tmp_path / "third")).pools[0]
    (tmp_path / "third").mkdir()
    both.pools.append(third)
    with running(settings) as provisioner:
        volume = provisioner.volumes.create(wanted("vol"), PATIENT)
    shutil.copytree(pool, tmp_path / "second", dirs_exist_ok=True)
    init_pool(str(tmp_path / "third"))
    retire(str(tmp_path / "third"), volume.volume_id.partition(".")[0])
    with running(both) as provisioner, pytest.raises(PoolUnavailable):
        provisioner.volumes.delete(volume.volume_id, PATIENT)


def test_only_a_pool_can_note_a_retirement(tmp_path: Path) -> None:
    with pytest.raises(PoolUnavailable, match="cannot note"):
        retire(str(tmp_path), "0123456789abcdef")
    assert os.listdir(tmp_path) == []


# -- several pools ----------------------------------------------------------------------------------


def test_a_name_lives_in_one_pool_alone(settings: Settings, tmp_path: Path) -> None:
    both = two_pools(settings, tmp_path)
    with running(both) as provisioner:
        volume = provisioner.volumes.create(wanted("vol"), PATIENT)
        with pytest.raises(VolumeConflict, match="exists in pool 'default', wanted it in 'second'"):
            provisioner.volumes.create(wanted("vol", pool="second"), PATIENT)
        other = provisioner.volumes.create(wanted("other", pool="second"), PATIENT)
        assert {found.volume_id for found in provisioner.volumes.list(0, "").volumes} == {
            volume.volume_id,
            other.volume_id,
        }
        page = provisioner.volumes.list(1, "")
        assert len(page.volumes) == 1
        assert len(provisioner.volumes.list(1, page.next_token).volumes) == 1
