"""Volumes at targets: real mounts, the access-mode matrix, and what is not ours."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from provisioner import disk as disk_module
from provisioner.assembly import Provisioner
from provisioner.errors import (
    InvalidRequest,
    Precondition,
    TargetNotFound,
    TargetOccupied,
    Unsupported,
    VolumeConflict,
    VolumeInUse,
    VolumeNotFound,
)
from provisioner.linux.mount import MS_BIND, MS_SHARED, mount
from provisioner.model import AccessMode, Capability, CapacityRange, HealthStatus, Volume
from provisioner.settings import Settings
from tests.support.provisioned import MIB, MULTI, PATIENT, SINGLE, at, running, wanted


@pytest.fixture
def volume(provisioner: Provisioner) -> Volume:
    """A volume to publish."""
    return provisioner.volumes.create(wanted("vol"), PATIENT)


def test_publish_shows_the_volume_and_unpublish_takes_it_away(
    provisioner: Provisioner, volume: Volume, targets: Path, control: Path
) -> None:
    target = targets / "pod"
    provisioner.publishing.stage(volume.volume_id, str(targets / "staged"), MULTI)
    provisioner.publishing.publish(at(volume.volume_id, target), PATIENT)
    provisioner.publishing.publish(at(volume.volume_id, target), PATIENT)
    (target / "file").write_text("hello")
    assert (control / "volumes/vol/data/file").read_text() == "hello"
    assert len(os.listdir(control / "published")) == 1
    for _ in range(2):
        provisioner.publishing.unpublish(volume.volume_id, str(target), PATIENT)
        assert not target.exists()
    assert os.listdir(control / "published") == []
    assert (control / "volumes/vol/data/file").read_text() == "hello"


@pytest.mark.parametrize("kernel", ["clones detached mounts", "is older"])
def test_a_publication_has_no_peers(
    settings: Settings, targets: Path, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is mounted in the volume later stays out of it; Linux before 6.15 can clone the pool's own mount only."""
    if kernel == "is older":
        monkeypatch.setattr(disk_module, "mount_setattr", _refuse)
    pool = Path(settings.pools[0].path)
    mount(str(pool), str(pool), None, MS_BIND)
    mount(None, str(pool), None, MS_SHARED)
    with running(settings) as provisioner:
        contents = provisioner._pools.pools[0].known
        assert contents
        assert contents.disk.detached is (kernel != "is older" and _clones_detached())
        volume = provisioner.volumes.create(wanted("vol"), PATIENT)
        provisioner.publishing.publish(at(volume.volume_id, targets / "pod"), PATIENT)
        inner = pool / ".csi-local-path/volumes/vol/data/inner"
        inner.mkdir()
        mount("tmpfs", str(inner), "tmpfs")
        assert inner.is_mount()
        assert not (targets / "pod/inner").is_mount()


def _refuse(*_: object, **__: object) -> None:
    raise OSError(errno.EINVAL, "as Linux before 6.15 does")


def _clones_detached() -> bool:
    return tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 15)


@pytest.mark.parametrize(
    ("capability", "readonly"),
    [
        (MULTI, True),
        (Capability(AccessMode.SINGLE_NODE_READER_ONLY), False),
        (Capability(AccessMode.SINGLE_NODE_WRITER, mount_flags=("ro",)), False),
    ],
)
def test_a_read_only_publication_refuses_writes(
    provisioner: Provisioner, volume: Volume, targets: Path, capability: Capability, readonly: bool
) -> None:
    provisioner.publishing.publish(at(volume.volume_id, targets / "ro", capability, readonly=readonly), PATIENT)
    with pytest.raises(OSError, match="Read-only") as caught:
        (targets / "ro" / "file").write_text("x")
    assert caught.value.errno == errno.EROFS


def test_mount_flags_reach_the_mount(provisioner: Provisioner, volume: Volume, targets: Path) -> None:
    flags = ("noexec", "nosuid,nodev", "noatime", "nodiratime", "nosymfollow")
    asked = Capability(AccessMode.SINGLE_NODE_WRITER, mount_flags=flags)
    provisioner.publishing.publish(at(volume.volume_id, targets / "t", asked), PATIENT)
    found = os.statvfs(targets / "t").f_flag
    for bit in (os.ST_NOEXEC, os.ST_NOSUID, os.ST_NODEV, os.ST_NOATIME, os.ST_NODIRATIME, 0x2000):
        assert found & bit
    provisioner.publishing.publish(at(volume.volume_id, targets / "t", asked), PATIENT)
    with pytest.raises(VolumeConflict):
        provisioner.publishing.publish(
            at(volume.volume_id, targets / "t", Capability(AccessMode.SINGLE_NODE_WRITER)), PATIENT
        )


@pytest.mark.parametrize("asked", [SINGLE, Capability(AccessMode.SINGLE_NODE_MULTI_WRITER, mount_flags=("noexec",))])
def test_the_same_target_otherwise_is_a_conflict(
    provisioner: Provisioner, volume: Volume, targets: Path, asked: Capability
) -> None:
    provisioner.publishing.publish(at(volume.volume_id, targets / "t"), PATIENT)
    with pytest.raises(VolumeConflict, match="unpublish it first"):
        provisioner.publishing.publish(at(volume.volume_id, targets / "t", asked), PATIENT)
    with pytest.raises(VolumeConflict):
        provisioner.publishing.publish(at(volume.volume_id, targets / "t", readonly=True), PATIENT)


_MODES = [
    AccessMode.SINGLE_NODE_WRITER,
    AccessMode.SINGLE_NODE_READER_ONLY,
    AccessMode.SINGLE_NODE_SINGLE_WRITER,
    AccessMode.SINGLE_NODE_MULTI_WRITER,
]


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("second", _MODES)
@pytest.mark.parametrize("first", _MODES)
def test_a_second_target_needs_multi_writer_at_both(
    settings: Settings, targets: Path, first: AccessMode, second: AccessMode, restart: bool
) -> None:
    with running(settings) as provisioner:
        volume = provisioner.volumes.create(wanted("vol"), PATIENT)
        provisioner.publishing.publish(at(volume.volume_id, targets / "a", Capability(first)), PATIENT)
        if not restart:
            _publish_second(provisioner, volume, targets, first, second)
    if restart:
        with running(settings) as provisioner:
            _publish_second(provisioner, volume, targets, first, second)


def _publish_second(
    provisioner: Provisioner, volume: Volume, targets: Path, first: AccessMode, second: AccessMode
) -> None:
    wish = at(volume.volume_id, targets / "b", Capability(second))
    if first is second is AccessMode.SINGLE_NODE_MULTI_WRITER:
        provisioner.publishing.publish(wish, PATIENT)
        return
    with pytest.raises(Precondition, match="second target"):
        provisioner.publishing.publish(wish, PATIENT)
    assert not (targets / "b").exists()
    provisioner.publishing.unpublish(volume.volume_id, str(targets / "a"), PATIENT)
    provisioner.publishing.publish(wish, PATIENT)


def test_publish_needs_a_staging_path(provisioner: Provisioner, volume: Volume, targets: Path) -> None:
    wish = at(volume.volume_id, targets / "t")
    with pytest.raises(Precondition, match="staging_target_path"):
        provisioner.publishing.publish(type(wish)(wish.volume_id, wish.target_path, "", MULTI, readonly=False), PATIENT)


@pytest.mark.parametrize(
    ("path", "error", "said"),
    [
        ("some/path", InvalidRequest, "absolute"),
        ("/etc/target", InvalidRequest, "outside the allowed roots"),
        ("{targets}/../up", InvalidRequest, "'..'"),
        ("{targets}//t", InvalidRequest, "empty"),
        ("{targets}", InvalidRequest, "outside"),
        ("{targets}/missing/t", TargetNotFound, "does not exist"),
        ("{targets}/link/t", InvalidRequest, "directories alone"),
        ("{targets}/file/t", InvalidRequest, "directories alone"),
        ("{targets}/link", TargetOccupied, "left alone"),
        ("{targets}/file", TargetOccupied, "left alone"),
        ("{targets}/full", TargetOccupied, "left alone"),
    ],
)
def test_bad_targets_are_refused_and_left_alone(
    provisioner: Provisioner, volume: Volume, targets: Path, path: str, error: type[Exception], said: str
) -> None:
    elsewhere = targets.parent / "elsewhere"
    elsewhere.mkdir()
    (targets / "link").symlink_to(elsewhere)
    (targets / "file").write_text("mine")
    (targets / "full").mkdir()
    (targets / "full" / "file").write_text("mine")
    with pytest.raises(error, match=said):
        provisioner.publishing.publish(at(volume.volume_id, path.format(targets=targets)), PATIENT)
    assert (targets / "file").read_text() == (targets / "full" / "file").read_text() == "mine"
    assert os.listdir(elsewhere) == []
    provisioner.publishing.publish(at(volume.volume_id, targets / "good"), PATIENT)


def test_publish_refuses_what_the_volume_cannot_be(provisioner: Provisioner, volume: Volume, targets: Path) -> None:
    block = Capability(AccessMode.SINGLE_NODE_WRITER, block=True)
    with pytest.raises(Unsupported, match="block"):
        provisioner.publishing.publish(at(volume.volume_id, targets / "t", block), PATIENT)
    with pytest.raises(InvalidRequest, match="quota"):
        provisioner.publishing.publish(
            at(volume.volume_id, targets / "t", Capability(AccessMode.SINGLE_NODE_WRITER, mount_flags=("quota",))),
            PATIENT,
        )
    with pytest.raises(VolumeNotFound):
        provisioner.publishing.publish(at(f"{volume.volume_id}x", targets / "t"), PATIENT)


def test_publish_does_not_replace_another_mount(provisioner: Provisioner, volume: Volume, targets: Path) -> None:
    (targets / "t").mkdir()
    mount("tmpfs", str(targets / "t"), "tmpfs", 0, "")
    with pytest.raises(VolumeConflict, match="something else is mounted"):
        provisioner.publishing.publish(at(volume.volume_id, targets / "t"), PATIENT)
    with pytest.raises(TargetOccupied, match="left alone"):
        provisioner.publishing.unpublish(volume.volume_id, str(targets / "t"), PATIENT)
    assert os.path.ismount(targets / "t")


def test_unpublish_leaves_another_volume_alone(provisioner: Provisioner, volume: Volume, targets: Path) -> None:
    other = provisioner.volumes.create(wanted("other"), PATIENT)
    provisioner.publishing.publish(at(other.volume_id, targets / "t"), PATIENT)
    with pytest.raises(TargetOccupied):
        provisioner.publishing.unpublish(volume.volume_id, str(targets / "t"), PATIENT)
    with pytest.raises(TargetOccupied):
        provisioner.publishing.unpublish("never-ours", str(targets / "t"), PATIENT)
    assert provisioner.publishing.health(other.volume_id, str(targets / "t")).problems == ()


def test_stacked_mounts_are_undone_one_by_one(
    provisioner: Provisioner, volume: Volume, targets: Path, control: Path
) -> None:
    target = targets / "t"
    provisioner.publishing.publish(at(volume.volume_id, target), PATIENT)
    mount(str(control / "volumes/vol/data"), str(target), "", MS_BIND, "")
    provisioner.publishing.unpublish(volume.volume_id, str(target), PATIENT)
    assert not target.exists()


def test_unpublish_works_when_the_volume_is_gone(
    provisioner: Provisioner, volume: Volume, targets: Path, control: Path
) -> None:
    target = targets / "t"
    provisioner.publishing.publish(at(volume.volume_id, target), PATIENT)
    (control / "volumes/vol").rename(control.parent / "moved-away")
    with pytest.raises(TargetOccupied):  # what is mounted there lies outside the pool now: not ours
        provisioner.publishing.unpublish(volume.volume_id, str(target), PATIENT)
    (control.parent / "moved-away").rename(control / "volumes/vol")
    (control / "volumes/vol").rename(control / "trash/vol.20260101T000000-1")
    provisioner.publishing.unpublish(volume.volume_id, str(target), PATIENT)
    assert not target.exists()


def test_unpublish_works_when_the_pool_is_gone(settings: Settings, targets: Path, control: Path) -> None:
    target = targets / "t"
    with running(settings) as provisioner:
        volume = provisioner.volumes.create(wanted("vol"), PATIENT)
        provisioner.publishing.publish(at(volume.volume_id, target), PATIENT)
    (control / "pool.json").unlink()
    (control / "volumes/vol/data").rmdir()
    with running(settings) as provisioner:
        provisioner.publishing.unpublish(volume.volume_id, str(target), PATIENT)
        provisioner.publishing.unstage(volume.volume_id, str(targets / "staged"))
    assert not target.exists()


def test_a_volume_whose_target_cannot_be_looked_at_is_not_deleted(
    provisioner: Provisioner, volume: Volume, targets: Path
) -> None:
    (targets / "pod").mkdir()
    provisioner.publishing.publish(at(volume.volume_id, targets / "pod" / "t"), PATIENT)
    (targets / "pod").rename(targets / "moved")
    (targets / "pod").symlink_to("pod")
    with pytest.raises(VolumeInUse, match="pod/t"):
        provisioner.volumes.delete(volume.volume_id, PATIENT)
    (targets / "pod").unlink()
    (targets / "moved").rename(targets / "pod")
    provisioner.publishing.unpublish(volume.volume_id, str(targets / "pod" / "t"), PATIENT)
    provisioner.volumes.delete(volume.volume_id, PATIENT)


def test_unpublish_removes_no_file(provisioner: Provisioner, volume: Volume, targets: Path) -> None:
    (targets / "full").mkdir()
    (targets / "full" / "file").write_text("mine")
    with pytest.raises(TargetOccupied, match="left alone"):
        provisioner.publishing.unpublish(volume.volume_id, str(targets / "full"), PATIENT)
    (targets / "file").write_text("mine")
    with pytest.raises(TargetOccupied):
        provisioner.publishing.unpublish(volume.volume_id, str(targets / "file"), PATIENT)
    assert (targets / "full" / "file").read_text() == (targets / "file").read_text() == "mine"
    provisioner.publishing.unpublish(volume.volume_id, str(targets / "missing" / "t"), PATIENT)


def test_a_busy_target_names_who_holds_it(provisioner: Provisioner, volume: Volume, targets: Path) -> None:
    target = targets / "t"
    provisioner.publishing.publish(at(volume.volume_id, target), PATIENT)
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(VolumeInUse, match=str(os.getpid())):
            provisioner.publishing.unpublish(volume.volume_id, str(target), PATIENT)
    finally:
        os.close(fd)
    provisioner.publishing.unpublish(volume.volume_id, str(target), PATIENT)


def test_a_volume_replaced_by_a_symlink_is_not_published(
    provisioner: Provisioner, volume: Volume, targets: Path, control: Path
) -> None:
    data = control / "volumes/vol/data"
    data.rmdir()
    data.symlink_to("/etc")
    with pytest.raises(Exception, match="cannot be opened"):
        provisioner.publishing.publish(at(volume.volume_id, targets / "t"), PATIENT)
    assert not (targets / "t").exists()
    (problem,) = provisioner.volumes.health(volume.volume_id).problems
    assert problem.status is HealthStatus.DATA_LOSS
    provisioner.volumes.delete(volume.volume_id, PATIENT)
    assert os.path.exists("/etc/passwd")


def test_what_is_mounted_inside_a_volume_stays_behind(
    provisioner: Provisioner, volume: Volume, targets: Path, control: Path
) -> None:
    inside = control / "volumes/vol/data/inside"
    inside.mkdir()
    mount("tmpfs", str(inside), "tmpfs", 0, "")
    (inside / "secret").write_text("x")
    provisioner.publishing.publish(at(volume.volume_id, targets / "t"), PATIENT)
    assert os.listdir(targets / "t" / "inside") == []


def test_statistics_come_from_a_publication_alone(provisioner: Provisioner, volume: Volume, targets: Path) -> None:
    target = targets / "t"
    provisioner.publishing.publish(at(volume.volume_id, target), PATIENT)
    found = provisioner.publishing.statistics(volume.volume_id, str(target))
    assert (found.bytes.total, found.bytes.used) == (MIB, 0)
    assert found.bytes.available <= MIB
    assert found.inodes is not None
    for path in ("some/path", str(targets), str(targets / "missing"), "/"):
        with pytest.raises(TargetNotFound):
            provisioner.publishing.statistics(volume.volume_id, path)
    with pytest.raises(VolumeNotFound):
        provisioner.publishing.statistics("some-id", str(target))
    assert provisioner.publishing.health(volume.volume_id, str(target)).problems == ()
    (problem,) = provisioner.publishing.health(volume.volume_id, str(targets)).problems
    assert problem.reason == "NotMounted"


def test_node_expand_gives_the_size_of_the_record(provisioner: Provisioner, volume: Volume, targets: Path) -> None:
    target = targets / "t"
    provisioner.publishing.publish(at(volume.volume_id, target), PATIENT)
    assert provisioner.publishing.expand(volume.volume_id, str(target), CapacityRange(MIB)) == MIB
    with pytest.raises(Exception, match="ControllerExpandVolume first"):
        provisioner.publishing.expand(volume.volume_id, str(target), CapacityRange(2 * MIB))
    with pytest.raises(TargetNotFound):
        provisioner.publishing.expand(volume.volume_id, "some/path", CapacityRange(MIB))
