"""Looking at pools without their lock: everything is told, nothing is changed, nobody is disturbed."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from provisioner.assembly import Provisioner
from provisioner.capacity import promisable
from provisioner.disk import Disk
from provisioner.identity import CONTROL, init_pool
from provisioner.settings import Settings
from provisioner.survey import survey
from provisioner.trash import Trash
from tests.support.disks import readonly, tree, until, with_pool
from tests.support.provisioned import GIB, MIB, PATIENT, running, wanted


@pytest.fixture
def _slow_eraser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trash, "start", lambda _: None)


def still(control: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Give the pool's tree once the background work that writes to it has ended."""
    until((control / "usage.json").exists)
    return tree(control)


@pytest.mark.usefixtures("_slow_eraser")
@pytest.mark.parametrize("served", [True, False])
def test_everything_is_told_and_nothing_changed(settings: Settings, control: Path, served: bool) -> None:
    provisioner = Provisioner(settings)
    provisioner.lock()
    provisioner.start()
    metadata = {"csi.storage.k8s.io/pvc/name": "data", "csi.storage.k8s.io/pvc/namespace": "shop"}
    kept = provisioner.volumes.create(replace(wanted("Kept", 5 * MIB), parameters=metadata), PATIENT)
    dropped = provisioner.volumes.create(wanted("dropped", 3 * MIB), PATIENT)
    provisioner.volumes.delete(dropped.volume_id, PATIENT)
    (control / "volumes/broken").mkdir()
    (control / "staging/half.0badcafe").mkdir()
    before = still(control)
    if not served:
        provisioner.stop()
    for _ in range(2):
        (pool,) = survey(settings)
        assert tree(control) == before
        assert (pool.name, pool.path, pool.reason) == ("default", settings.pools[0].path, "")
        assert pool.pool_id == kept.volume_id.partition(".")[0]
        assert pool.state == ("served" if served else "idle")
        assert (f"{os.uname().nodename} (process {os.getpid()}) since 20" in pool.owner) == served
        assert (pool.promised_bytes, pool.trash_bytes) == (5 * MIB, 3 * MIB)
        found = {volume.state: volume for volume in pool.volumes}
        assert len(pool.volumes) == 3
        assert (found["ok"].volume_id, found["ok"].name, found["ok"].claim) == (kept.volume_id, "Kept", "shop/data")
        assert found["ok"].capacity_bytes == 5 * MIB
        assert (found["trash"].volume_id, found["trash"].name) == (dropped.volume_id, "dropped")
        assert found["quarantined"].volume_id == f"{pool.pool_id}.broken"
        assert "volume.json cannot be read" in found["quarantined"].reason
    provisioner.stop()


def test_the_figures_are_those_that_the_driver_goes_by(settings: Settings, control: Path) -> None:
    with running(settings) as provisioner:
        provisioner.volumes.create(wanted("vol", GIB), PATIENT)
        (control / "volumes/vol/data/file").write_bytes(bytes(MIB))
        provisioner._measurer.run_once()
        (pool,) = survey(settings)
        disk = Disk(settings.pools[0], readonly=True)
        space = disk.space()
        disk.close()
        assert pool.foreign_bytes is not None
        assert pool.foreign_measured_at == pytest.approx(time.time(), abs=60)
        assert pool.volumes[0].used_bytes == pytest.approx(MIB, rel=0.1)
        assert pool.volumes[0].measured_at == pytest.approx(time.time(), abs=60)
        assert pool.size_bytes == space.size_bytes
        expected = promisable(settings.pools[0], space, GIB, 0, pool.foreign_bytes)
        offered = provisioner.volumes.capacity({}, ()).available_bytes
        for figure in (pool.promisable_bytes, offered):
            assert figure == pytest.approx(expected, abs=256 * MIB)  # others write to this disk
        assert pool.fs_type


def test_a_pool_that_cannot_be_read_is_told(settings: Settings, tmp_path: Path) -> None:
    pool = Path(settings.pools[0].path)
    (found,) = survey(settings)
    assert (found.state, found.volumes) == ("unavailable", [])
    assert "pools init" in found.reason
    assert os.listdir(pool) == [], "looking gave it an identity"
    (found,) = survey(with_pool(settings, path=str(tmp_path / "missing")))
    assert (found.state, found.name) == ("unavailable", "default")
    assert "No such file" in found.reason
    init_pool(str(pool))
    (found,) = survey(with_pool(settings, require_mount=True))
    assert "requireMount" in found.reason
    (found,) = survey(settings)
    assert (found.state, found.owner) == ("idle", "")
    assert "lock" not in os.listdir(pool / CONTROL)


def test_a_read_only_pool_can_be_looked_at(settings: Settings, control: Path) -> None:
    with running(settings) as provisioner:
        provisioner.volumes.create(wanted("vol"), PATIENT)
    with readonly(control.parent):
        (pool,) = survey(settings)
    assert (pool.state, len(pool.volumes), pool.promisable_bytes) == ("idle", 1, 0)


def test_looking_leaves_no_descriptor_and_no_lock(settings: Settings, control: Path) -> None:
    with running(settings):
        pass
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        survey(settings)
    assert os.listdir("/proc/self/fd") == before
    with (control / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_an_owner_that_died_is_not_told_for_one(settings: Settings) -> None:
    with running(settings):
        assert survey(settings)[0].state == "served"
    assert (survey(settings)[0].state, survey(settings)[0].owner) == ("idle", "")


def test_volumes_that_come_and_go_meanwhile_are_not_called_broken(settings: Settings) -> None:
    with running(settings) as provisioner:
        ending = threading.Event()

        def churn() -> None:
            while not ending.is_set():
                for name in ("a", "b", "c"):
                    volume = provisioner.volumes.create(wanted(name), PATIENT)
                    provisioner.volumes.delete(volume.volume_id, PATIENT)

        thread = threading.Thread(target=churn)
        thread.start()
        try:
            for _ in range(150):
                states = {(volume.state, volume.reason) for volume in survey(settings)[0].volumes}
                assert not [state for state in states if state[0] == "quarantined"]
        finally:
            ending.set()
            thread.join()
