"""Figures of pools: what calls change, and what is left of them while a disk is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner import pools
from provisioner.assembly import Provisioner
from provisioner.figures import ContentFigures, PoolFigures
from provisioner.identity import init_pool
from provisioner.settings import Settings
from tests.support.disks import bind, pull, readonly, until
from tests.support.filesystems import tmpfs
from tests.support.provisioned import MIB, PATIENT, at, running, wanted


@pytest.fixture(autouse=True)
def _watch_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_LOOK_AGAIN_S", 0.05)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A pool on a filesystem of its own."""
    with tmpfs(tmp_path / "disk") as path:
        init_pool(str(path))
        yield path


def figures(provisioner: Provisioner) -> PoolFigures:
    """Give those of the only pool."""
    (found,) = provisioner.figures()
    return found


def contents(provisioner: Provisioner) -> ContentFigures:
    """Give those of what is in it."""
    found = figures(provisioner).contents
    assert found is not None
    return found


def test_calls_change_what_is_told(provisioner: Provisioner, targets: Path) -> None:
    volume = provisioner.volumes.create(wanted("pvc-1", 2 * MIB), PATIENT)
    provisioner.publishing.publish(at(volume.volume_id, targets / "a"), PATIENT)
    found = contents(provisioner)
    assert (found.volumes, found.published, found.promised_bytes) == (1, 1, 2 * MIB)
    provisioner.publishing.unpublish(volume.volume_id, str(targets / "a"), PATIENT)
    provisioner.volumes.delete(volume.volume_id, PATIENT)
    found = contents(provisioner)
    assert (found.volumes, found.published, found.promised_bytes) == (0, 0, 0)
    until(lambda: contents(provisioner).trash_bytes == 0)


def test_what_may_be_promised_is_what_capacity_says(provisioner: Provisioner) -> None:
    provisioner.volumes.create(wanted("pvc-1", 2 * MIB), PATIENT)
    (pool,) = provisioner._pools.pools
    pool.look()
    free = provisioner.volumes.capacity({}, ()).available_bytes
    assert abs(contents(provisioner).promisable_bytes - free) < 64 * MIB  # others write to the disk meanwhile


def test_a_broken_record_is_counted_apart(settings: Settings, control: Path) -> None:
    with running(settings) as provisioner:
        provisioner.volumes.create(wanted("pvc-1"), PATIENT)
        provisioner.volumes.create(wanted("pvc-2"), PATIENT)
    (control / "volumes/pvc-1/volume.json").write_text("{")
    with running(settings) as provisioner:
        assert (contents(provisioner).volumes, contents(provisioner).quarantined) == (1, 1)


def test_a_disk_that_goes_keeps_its_counts(settings: Settings, disk: Path) -> None:
    path = Path(settings.pools[0].path)
    bind(disk, path)
    with running(settings) as provisioner:
        provisioner.volumes.create(wanted("pvc-1"), PATIENT)
        assert (figures(provisioner).space is not None, figures(provisioner).writable) == (True, True)
        pull(path)
        until(lambda: figures(provisioner).space is None)
        assert (figures(provisioner).writable, contents(provisioner).volumes) == (False, 1)
        bind(disk, path)
        until(lambda: figures(provisioner).space is not None)
        assert figures(provisioner).writable


def test_a_disk_that_was_never_there_has_no_contents(settings: Settings) -> None:
    Path(settings.pools[0].path).rmdir()
    with running(settings) as provisioner:
        found = figures(provisioner)
        assert (found.space, found.writable, found.contents) == (None, False, None)
        assert found.seen_at > 0


def test_a_disk_that_cannot_be_written_to_is_told(settings: Settings) -> None:
    with running(settings):
        pass
    with readonly(Path(settings.pools[0].path)), running(settings) as provisioner:
        assert figures(provisioner).space is not None
        assert not figures(provisioner).writable
        assert contents(provisioner).promisable_bytes == 0
