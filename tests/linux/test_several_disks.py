"""Several pools on a node: copies of one are refused, lost ones can be given up, names are unique."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner import pools
from provisioner.errors import (
    PoolUnavailable,
    ProvisionerError,
    VolumeConflict,
)
from provisioner.identity import CONTROL, init_pool, retire
from provisioner.linux.mount import MS_BIND, mount
from provisioner.settings import Settings
from tests.support.disks import bind, is_reachable, pull, tree, two_pools, until, watched, with_pool
from tests.support.filesystems import tmpfs
from tests.support.provisioned import PATIENT, at, running, wanted


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
