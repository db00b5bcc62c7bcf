"""Volumes that nobody ever used can be told from all others, also after a crash and on a full disk."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from provisioner.assembly import Provisioner
from provisioner.errors import OperationPending, Precondition
from provisioner.marks import OnlyIfUnused
from provisioner.settings import Settings
from tests.support.provisioned import PATIENT, at, running, wanted

NOW = OnlyIfUnused(0)


def exists(provisioner: Provisioner, volume_id: str) -> bool:
    return volume_id in [volume.volume_id for volume in provisioner.volumes.list(0, "").volumes]


def test_what_was_never_used_goes(provisioner: Provisioner) -> None:
    volume = provisioner.volumes.create(wanted("vol"), PATIENT)
    for _ in range(2):
        provisioner.volumes.delete(volume.volume_id, PATIENT, only_if=NOW)
    assert not exists(provisioner, volume.volume_id)


def test_what_was_published_once_stays(provisioner: Provisioner, targets: Path, control: Path) -> None:
    volume = provisioner.volumes.create(wanted("vol"), PATIENT)
    provisioner.publishing.publish(at(volume.volume_id, targets / "t"), PATIENT)
    provisioner.publishing.unpublish(volume.volume_id, str(targets / "t"), PATIENT)
    with pytest.raises(Precondition, match="was published once"):
        provisioner.volumes.delete(volume.volume_id, PATIENT, only_if=NOW)
    assert exists(provisioner, volume.volume_id)
    assert (control / "volumes/vol").stat().st_mode & stat.S_ISVTX
    provisioner.volumes.delete(volume.volume_id, PATIENT)
    assert not exists(provisioner, volume.volume_id)


def test_the_mark_outlives_the_process(settings: Settings, tmp_path: Path) -> None:
    with running(settings) as provisioner:
        volume = provisioner.volumes.create(wanted("vol"), PATIENT)
        provisioner.publishing.publish(at(volume.volume_id, tmp_path / "targets/t"), PATIENT)
        provisioner.publishing.unpublish(volume.volume_id, str(tmp_path / "targets/t"), PATIENT)
        grown = provisioner.volumes.get(volume.volume_id)
    with running(settings) as provisioner:
        assert provisioner.volumes.get(volume.volume_id) == grown
        with pytest.raises(Precondition, match="was published once"):
            provisioner.volumes.delete(volume.volume_id, PATIENT, only_if=NOW)


def test_what_holds_files_stays_whatever_the_mark_says(provisioner: Provisioner, control: Path) -> None:
    volume = provisioner.volumes.create(wanted("vol"), PATIENT)
    (control / "volumes/vol/data/.hidden").touch()
    with pytest.raises(Precondition, match="holds files"):
        provisioner.volumes.delete(volume.volume_id, PATIENT, only_if=NOW)
    assert exists(provisioner, volume.volume_id)


@pytest.mark.parametrize(("hours", "goes"), [(0.5, False), (-1, False), (2, True)])
def test_what_is_young_stays(settings: Settings, hours: float, goes: bool) -> None:
    with running(settings) as provisioner:
        volume = provisioner.volumes.create(wanted("vol"), PATIENT)
    record = next(Path(settings.pools[0].path).glob(".csi-local-path/volumes/vol/volume.json"))
    then = (datetime.now(UTC) - timedelta(hours=hours)).isoformat(timespec="seconds").replace("+00:00", "Z")
    record.write_bytes(msgspec.json.encode({**msgspec.json.decode(record.read_bytes()), "created_at": then}))
    with running(settings) as provisioner:
        if goes:
            provisioner.volumes.delete(volume.volume_id, PATIENT, only_if=OnlyIfUnused(3600))
        else:
            with pytest.raises(OperationPending, match="wanted 3600"):
                provisioner.volumes.delete(volume.volume_id, PATIENT, only_if=OnlyIfUnused(3600))
        assert exists(provisioner, volume.volume_id) is not goes
