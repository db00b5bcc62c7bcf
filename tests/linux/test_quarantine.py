"""A volume whose record cannot be trusted is left alone, and nothing else suffers; what a crash left is swept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provisioner.assembly import Provisioner
from provisioner.errors import VolumeNotFound, VolumeQuarantined
from provisioner.identity import CONTROL
from provisioner.model import CapacityRange, HealthStatus, StorageStatus, Volume
from provisioner.records import MAX_BYTES
from provisioner.settings import Settings
from provisioner.survey import survey
from provisioner.trash import Trash
from tests.support.disks import tree, until
from tests.support.filesystems import tmpfs
from tests.support.provisioned import GIB, MIB, PATIENT, at, running, settings_for, wanted

Break = Callable[[Path], object]


def truncated(folder: Path) -> None:
    record = folder / "volume.json"
    record.write_bytes(record.read_bytes()[:40])


def emptied(folder: Path) -> None:
    (folder / "volume.json").write_bytes(b"")


def garbage(folder: Path) -> None:
    (folder / "volume.json").write_bytes(os.urandom(300))


def zeroed(folder: Path) -> None:
    (folder / "volume.json").write_bytes(bytes(4096))


def huge(folder: Path) -> None:
    with (folder / "volume.json").open("ab") as file:
        file.write(b" " * MAX_BYTES)


def missing(folder: Path) -> None:
    (folder / "volume.json").unlink()


def newer_schema(folder: Path) -> None:
    changed(folder, schema=2, shape="new")


def another_volume(folder: Path) -> None:
    changed(folder, volume_id="0123456789abcdef.bad", name="bad")


def another_name(folder: Path) -> None:
    changed(folder, name="other")


def a_string_for_a_number(folder: Path) -> None:
    changed(folder, capacity_bytes="1Gi")


def negative(folder: Path) -> None:
    changed(folder, capacity_bytes=-1)


def too_large(folder: Path) -> None:
    changed(folder, capacity_bytes=2**63)


def deeply_nested(folder: Path) -> None:
    (folder / "volume.json").write_text('{"schema": 1, "x": ' + "[" * 30000)


def record_is_a_folder(folder: Path) -> None:
    missing(folder)
    (folder / "volume.json").mkdir()


def record_is_a_fifo(folder: Path) -> None:
    missing(folder)
    os.mkfifo(folder / "volume.json")


def record_is_a_symlink(folder: Path) -> None:
    (folder / "volume.json").rename(folder / "elsewhere")
    (folder / "volume.json").symlink_to("elsewhere")


def data_is_missing(folder: Path) -> None:
    (folder / "data").rename(folder / "moved")


def data_is_a_file(folder: Path) -> None:
    data_is_missing(folder)
    (folder / "data").write_text("x")


def data_is_a_symlink(folder: Path) -> None:
    data_is_missing(folder)
    (folder / "data").symlink_to("/etc")


def folder_is_a_symlink(folder: Path) -> None:
    folder.rename(folder.parent.parent / "moved")
    folder.symlink_to(folder.parent.parent / "moved")


def folder_is_a_file(folder: Path) -> None:
    folder.rename(folder.parent.parent / "moved")
    folder.write_text("x")


def changed(folder: Path, **keys: object) -> None:
    content = json.loads((folder / "volume.json").read_text())
    (folder / "volume.json").write_text(json.dumps(content | keys))


BREAKS: list[Break] = [
    truncated,
    emptied,
    garbage,
    zeroed,
    huge,
    missing,
    newer_schema,
    another_volume,
    another_name,
    a_string_for_a_number,
    negative,
    too_large,
    deeply_nested,
    record_is_a_folder,
    record_is_a_fifo,
    record_is_a_symlink,
    data_is_missing,
    data_is_a_file,
    data_is_a_symlink,
    folder_is_a_symlink,
    folder_is_a_file,
]


@pytest.fixture
def made(settings: Settings, control: Path) -> dict[str, Volume]:
    """Three volumes with a file each, made by an earlier process."""
    with running(settings) as provisioner:
        volumes = {name: provisioner.volumes.create(wanted(name), PATIENT) for name in ("a-good", "bad", "good")}
    for name in volumes:
        (control / "volumes" / name / "data" / "file").write_text(name)
    return volumes


@pytest.mark.parametrize("damage", BREAKS)
def test_a_broken_volume_is_reported_and_left_alone(
    settings: Settings, control: Path, targets: Path, made: dict[str, Volume], damage: Break
) -> None:
    damage(control / "volumes/bad")
    before = tree(control)["volumes/bad"], tree(control / "volumes/bad")
    bad = made.pop("bad").volume_id
    with running(settings) as provisioner:
        volumes = provisioner.volumes
        assert volumes.list(0, "").volumes == list(made.values())
        (unwell,) = volumes.list_health(0, "").volumes
        assert unwell == volumes.health(bad)
        assert (unwell.volume_id, unwell.problems[0].status) == (bad, HealthStatus.INACCESSIBLE)
        assert unwell.problems[0].reason == "RecordBroken"
        assert provisioner.publishing.health(bad, str(targets / "t")).problems
        (problem,) = volumes.storage_health()
        assert (problem.status, "bad" in problem.message) == (StorageStatus.DEGRADED, True)
        refuse_all(provisioner, bad, targets)
        for name, volume in made.items():
            assert volumes.get(volume.volume_id) == volume
            assert volumes.create(wanted(name), PATIENT) == volume
            provisioner.publishing.publish(at(volume.volume_id, targets / name), PATIENT)
            assert (targets / name / "file").read_text() == name
            provisioner.publishing.unpublish(volume.volume_id, str(targets / name), PATIENT)
            volumes.delete(volume.volume_id, PATIENT)
        (report,) = [found for found in survey(settings)[0].volumes if found.state == "quarantined"]
        assert report.volume_id == bad
        assert report.reason
    assert (tree(control)["volumes/bad"], tree(control / "volumes/bad")) == before
    assert os.listdir(control / "volumes") == ["bad"]
    assert (Path("/etc/passwd")).exists()


def refuse_all(provisioner: Provisioner, bad: str, targets: Path) -> None:
    """Whatever names the volume is answered with its quarantine, and what to do."""
    volumes = provisioner.volumes
    for call in (
        lambda: volumes.create(wanted("bad"), PATIENT),
        lambda: volumes.delete(bad, PATIENT),
        lambda: volumes.get(bad),
        lambda: volumes.expand(bad, CapacityRange(2 * MIB), None, PATIENT),
        lambda: volumes.validate(bad, (), {}),
        lambda: provisioner.publishing.publish(at(bad, targets / "t"), PATIENT),
        lambda: provisioner.publishing.statistics(bad, str(targets / "t")),
    ):
        with pytest.raises(VolumeQuarantined, match="its data is left alone; mend or move"):
            call()
    provisioner.publishing.unpublish(bad, str(targets / "t"), PATIENT)
    assert os.listdir(targets) == []


@pytest.mark.parametrize("name", ["UPPER", ".hidden", "lost+found", "with space", "_short", "\udcff"])
def test_a_folder_that_no_volume_can_have_is_reported(
    settings: Settings, control: Path, made: dict[str, Volume], name: str
) -> None:
    (control / "volumes" / name).mkdir()
    with running(settings) as provisioner:
        assert provisioner.volumes.list(0, "").volumes == list(made.values())
        (problem,) = provisioner.volumes.storage_health()
        assert "1 volumes have broken records" in problem.message
        problem.message.encode()
        assert provisioner.volumes.list_health(0, "").volumes == []
    assert (control / "volumes" / name).exists()


def test_a_mended_record_ends_the_quarantine_at_the_next_start(
    settings: Settings, control: Path, made: dict[str, Volume]
) -> None:
    record = control / "volumes/bad/volume.json"
    good = record.read_bytes()
    truncated(control / "volumes/bad")
    with running(settings) as provisioner, pytest.raises(VolumeQuarantined):
        provisioner.volumes.get(made["bad"].volume_id)
    record.write_bytes(good)
    with running(settings) as provisioner:
        assert provisioner.volumes.get(made["bad"].volume_id) == made["bad"]


def test_broken_volumes_are_paged_with_the_sound_ones(settings: Settings, control: Path) -> None:
    names = [f"v{i}" for i in range(7)]
    with running(settings) as provisioner:
        for name in names:
            provisioner.volumes.create(wanted(name), PATIENT)
    for name in names[::2]:
        emptied(control / "volumes" / name)
    with running(settings) as provisioner:
        found, token = [], ""
        while True:
            page = provisioner.volumes.list_health(2, token)
            found += [volume.volume_id.partition(".")[2] for volume in page.volumes]
            token = page.next_token
            if not token:
                break
        assert found == names[::2]


def test_a_folder_that_comes_while_it_is_served_is_not_touched(
    provisioner: Provisioner, control: Path, targets: Path
) -> None:
    """Neither a create nor a delete of its name takes it for ours, whose record was never read."""
    volume = provisioner.volumes.create(wanted("vol"), PATIENT)
    (control / "volumes/came").mkdir()
    (control / "volumes/came/file").write_text("mine")
    for _ in range(2):
        with pytest.raises(VolumeQuarantined, match="left alone"):
            provisioner.volumes.create(wanted("came"), PATIENT)
        with pytest.raises(VolumeQuarantined, match="restart the driver"):
            provisioner.volumes.delete(volume.volume_id.replace("vol", "came"), PATIENT)
    assert (control / "volumes/came/file").read_text() == "mine"
    assert os.listdir(targets) == []


# -- what a crash left ------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Settings]:
    """A pool of 64 MiB whose figures nobody else changes."""
    with tmpfs(tmp_path / "small", 64 * MIB) as path:
        yield settings_for(path)


def test_what_was_being_built_is_swept_at_the_start(settings: Settings, control: Path) -> None:
    with running(settings) as provisioner:
        volume = provisioner.volumes.create(wanted("vol"), PATIENT)
    staging = control / "staging"
    (staging / "vol.0badcafe" / "data").mkdir(parents=True)
    (staging / "vol.0badcafe" / "data" / "file").write_text("x")
    (staging / "vol.deadbeef").write_text('{"half": "a rec')
    (staging / "usage.json.new").write_text("{")
    (staging / "link").symlink_to("/etc")
    os.mkfifo(staging / "fifo")
    with running(settings) as provisioner:
        until(lambda: os.listdir(staging) == [])
        until(lambda: os.listdir(control / "trash") == [])
        assert provisioner.volumes.get(volume.volume_id) == volume
        assert provisioner.volumes.storage_health() == []
    assert Path("/etc/passwd").exists()


def test_trash_holds_its_room_across_a_restart_until_it_is_erased(
    small: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def left(provisioner: Provisioner) -> int:
        return provisioner.volumes.capacity({}, ()).available_bytes // MIB

    with monkeypatch.context() as patched:
        patched.setattr(Trash, "start", lambda _: None)  # an eraser that is slow to begin
        with running(small) as provisioner:
            whole = left(provisioner)
            volume = provisioner.volumes.create(wanted("vol", 20 * MIB), PATIENT)
            other = provisioner.volumes.create(wanted("other", 10 * MIB), PATIENT)
            provisioner.volumes.delete(volume.volume_id, PATIENT)
            assert abs(whole - 30 - left(provisioner)) <= 1
        with running(small) as provisioner:
            assert abs(whole - 30 - left(provisioner)) <= 1
            with pytest.raises(VolumeNotFound):
                provisioner.volumes.get(volume.volume_id)
            provisioner.volumes.delete(volume.volume_id, PATIENT)
            (found,) = [entry for entry in survey(small)[0].volumes if entry.state == "trash"]
            assert (found.volume_id, found.capacity_bytes) == (volume.volume_id, 20 * MIB)
            assert survey(small)[0].trash_bytes == 20 * MIB
    with running(small) as provisioner:
        until(lambda: left(provisioner) >= whole - 10 - 1)
        assert os.listdir(Path(small.pools[0].path) / CONTROL / "trash") == []
        assert provisioner.volumes.get(other.volume_id) == other


def test_a_deleted_volume_gives_its_room_back_once_it_is_erased(small: Settings) -> None:
    control = Path(small.pools[0].path) / CONTROL
    with running(small) as provisioner:
        for _ in range(5):  # together more than the pool has
            volume = provisioner.volumes.create(wanted("vol", 40 * MIB), PATIENT)
            (control / "volumes/vol/data/file").write_bytes(bytes(MIB))
            provisioner.volumes.delete(volume.volume_id, PATIENT)
            until(lambda: provisioner.volumes.capacity({}, ()).available_bytes > 60 * MIB)
        assert provisioner.volumes.capacity({}, ()).available_bytes < GIB


def test_an_expansion_that_crashed_before_its_rename_left_the_old_size(settings: Settings, control: Path) -> None:
    with running(settings) as provisioner:
        volume = provisioner.volumes.create(wanted("vol"), PATIENT)
    draft = control / "staging/vol.0badcafe"
    draft.write_bytes((control / "volumes/vol/volume.json").read_bytes().replace(b"1048576", b"2097152"))
    with running(settings) as provisioner:
        assert provisioner.volumes.get(volume.volume_id) == volume
        assert provisioner.volumes.expand(volume.volume_id, CapacityRange(2 * MIB), None, PATIENT).capacity_bytes == (
            2 * MIB
        )
