"""Volumes as images: staged once, published often, grown in use, mended, and no loop device left behind."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest

from provisioner import loops
from provisioner.errors import (
    CapacityOutOfRange,
    InvalidRequest,
    Precondition,
    TargetNotFound,
    VolumeConflict,
    VolumeInUse,
)
from provisioner.linux import loop
from provisioner.linux.fsresize import may_grow_ext4
from provisioner.linux.mountinfo import read_mountinfo
from provisioner.model import AccessMode, Capability, CapacityRange, Volume
from tests.support.disks import full, until
from tests.support.filesystems import loop_filesystem
from tests.support.inline import Pod, allowing
from tests.support.limited import MIB, write_as_pod
from tests.support.means import IMAGES, Served, serving
from tests.support.provisioned import MULTI, PATIENT, SINGLE, at, running, settings_for

SIZE = 32 * MIB
XFS_LEAST = 300 * MIB
BLOCK = Capability(AccessMode.SINGLE_NODE_MULTI_WRITER, block=True)


def _options(path: Path) -> tuple[str, ...]:
    return next(mount.super_options for mount in read_mountinfo() if mount.mount_point == str(path))


def test_it_is_staged_once_and_published_often(served: Served) -> None:
    volume = served.create("shared", SIZE)
    first = served.publish(volume)
    staged, second = served.targets / "shared.staged", served.targets / "second"
    served.provisioner.publishing.publish(at(volume.volume_id, second, staged=str(staged)), PATIENT)
    served.publish(volume)  # all of it again
    assert len(served.devices()) == 1
    (first / "file").write_text("seen by both")
    assert (second / "file").read_text() == "seen by both"
    assert loops.flags_of(served.devices()[0]) & loop.LO_FLAGS_DIRECT_IO
    served.provisioner.publishing.unpublish(volume.volume_id, str(second), PATIENT)
    served.unpublish(volume)
    served.unpublish(volume)  # again
    served.until_detached()
    with pytest.raises(Precondition, match="stage it first"):
        served.provisioner.publishing.publish(at(volume.volume_id, second, staged=str(staged)), PATIENT)
    assert (served.publish(volume) / "file").read_text() == "seen by both"
    served.take_away(volume)
    served.until_detached()
    assert list(served.targets.iterdir()) == [staged]


def test_a_single_writer_may_be_staged_and_published_once(served: Served) -> None:
    volume = served.create("single", SIZE)
    served.publish(volume, SINGLE)
    with pytest.raises(Precondition, match="second target"):
        served.provisioner.publishing.publish(
            at(volume.volume_id, served.targets / "second", SINGLE, staged=str(served.targets / "single.staged")),
            PATIENT,
        )


def test_what_is_staged_is_not_deleted(served: Served) -> None:
    volume = served.create("staged", SIZE)
    served.publish(volume)
    served.provisioner.publishing.unpublish(volume.volume_id, str(served.targets / "staged"), PATIENT)
    with pytest.raises(VolumeInUse, match=r"staged\.staged"):
        served.provisioner.volumes.delete(volume.volume_id, PATIENT)
    served.take_away(volume)
    served.until_detached()


def test_its_root_gets_its_owner_and_mode_once(served: Served) -> None:
    volume = served.create("owned", SIZE, mode="2750", uid="1234", gid="5678")
    target = served.publish(volume)
    found = target.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o2750, 1234, 5678)
    os.chown(target, 7, 7)
    served.unpublish(volume)
    assert served.publish(volume).stat().st_uid == 7


def test_mount_options_of_the_filesystem_are_honoured(served: Served) -> None:
    capability = Capability(AccessMode.SINGLE_NODE_MULTI_WRITER, mount_flags=("noatime", "commit=30", "discard"))
    target = served.publish(served.create("options", SIZE), capability)
    assert {"commit=30", "discard"} <= set(_options(target))
    wrong = Capability(AccessMode.SINGLE_NODE_MULTI_WRITER, mount_flags=("no-such-option",))
    for fs_type, size in (("ext4", SIZE), ("xfs", XFS_LEAST)):
        with pytest.raises(InvalidRequest, match="no-such-option"):
            served.publish(served.create(f"wrong-{fs_type}", size, fsType=fs_type), wrong)
    until(lambda: len(served.devices()) == 1)


@pytest.mark.usefixtures("pool")
def test_what_is_staged_with_other_options_is_a_conflict(tmp_path: Path) -> None:
    first, other = (
        Capability(AccessMode.SINGLE_NODE_MULTI_WRITER, mount_flags=flags) for flags in (("noatime", "commit=30"), ())
    )
    with serving(IMAGES, tmp_path, unmount=False) as served:
        volume = served.create("options", SIZE)
        served.publish(volume, first)
    with serving(IMAGES, tmp_path) as served:
        served.publish(volume, first)
        staged = served.targets / "options.staged"
        for path in (staged, served.targets / "elsewhere"):
            with pytest.raises(VolumeConflict, match="commit=30"):
                served.provisioner.publishing.stage(volume.volume_id, str(path), other)
        (served.control / "volumes/options/options").unlink()  # as of an earlier release
        served.provisioner.publishing.stage(volume.volume_id, str(staged), other)
        served.unpublish(volume)
        served.until_detached()
        assert "commit=30" not in _options(served.publish(volume, other))


def test_a_preallocated_one_keeps_its_room(served: Served) -> None:
    """What is deleted in it stays its own; `discard`, which would give that back, is refused from the start."""
    discarding = Capability(AccessMode.SINGLE_NODE_MULTI_WRITER, mount_flags=("discard",))
    with pytest.raises(InvalidRequest, match="mount flag 'discard'"):
        served.create("refused", SIZE, capability=discarding, thin="false")
    parameters = served.means.parameters | {"thin": "false"}
    assert served.provisioner.volumes.capacity(parameters, (discarding,)).available_bytes == 0
    volume = served.create("kept", SIZE, thin="false")
    with pytest.raises(InvalidRequest, match="mount flag 'discard'"):
        served.publish(volume, discarding)
    target = served.publish(volume)
    assert write_as_pod(target / "file", SIZE // 2).errno == 0
    (target / "file").unlink()
    os.sync()
    assert (served.control / "volumes/kept/disk.img").stat().st_blocks * 512 >= SIZE


def test_the_filesystem_is_the_one_that_was_asked_for(served: Served) -> None:
    volume = served.create("xfs", XFS_LEAST, fsType="xfs")
    target = served.publish(volume)
    assert next(mount.fs_type for mount in read_mountinfo() if mount.mount_point == str(target)) == "xfs"
    with pytest.raises(InvalidRequest, match="ext4 or xfs"):
        served.create("zfs", SIZE, fsType="zfs")
    with pytest.raises(InvalidRequest, match="fs_type"):
        served.publish(volume, Capability(AccessMode.SINGLE_NODE_MULTI_WRITER, fs_type="ext4"))


def test_an_xfs_is_rounded_up_to_the_least_there_is_where_the_limit_lets_it(served: Served) -> None:
    assert served.create("small", MIB, fsType="xfs").capacity_bytes == XFS_LEAST
    narrow = served.means.wanted("narrow", MIB, limit=2 * MIB, fsType="xfs")
    with pytest.raises(CapacityOutOfRange, match=str(XFS_LEAST)):
        served.provisioner.volumes.create(narrow, PATIENT)
    assert served.create("odd", SIZE + 1).capacity_bytes == SIZE + 4096


def test_inodes_are_those_of_the_class(served: Served) -> None:
    volume = served.create("many", SIZE, inodes="20000")
    target = served.publish(volume)
    found = served.provisioner.publishing.statistics(volume.volume_id, str(target)).inodes
    assert found is not None
    assert 20000 <= found.total < 21000
    with pytest.raises(InvalidRequest, match="inodes"):
        served.create("xfs", XFS_LEAST, inodes="20000", fsType="xfs")


def test_figures_of_a_large_one_are_those_of_df(served: Served) -> None:
    volume = served.create("large", 800 * MIB)
    target = served.publish(volume)
    found = served.provisioner.publishing.statistics(volume.volume_id, str(target)).bytes
    df = os.statvfs(target)
    assert (found.total, found.available) == (df.f_blocks * df.f_frsize, df.f_bavail * df.f_frsize)
    assert 0.93 * 800 * MIB <= found.total <= 800 * MIB


def test_an_xfs_grows_while_it_is_used(served: Served) -> None:
    volume = served.create("grows", XFS_LEAST, fsType="xfs")
    target = served.publish(volume)
    before = os.statvfs(target).f_blocks
    for _ in range(2):
        grown = served.provisioner.volumes.expand(volume.volume_id, CapacityRange(2 * XFS_LEAST), MULTI, PATIENT)
        assert (grown.capacity_bytes, grown.grows_on_node) == (2 * XFS_LEAST, True)
        served.grow(volume, 2 * XFS_LEAST)
    assert os.statvfs(target).f_blocks - before >= XFS_LEAST * 0.95 / 4096
    with pytest.raises(TargetNotFound):
        served.provisioner.publishing.expand(volume.volume_id, str(served.targets), CapacityRange(XFS_LEAST))


def test_calls_that_let_it_grow_come_in_any_order_and_again(served: Served) -> None:
    """The node's, before the volume has the size, is refused and changes nothing; each may be repeated."""
    volume = served.create("early", XFS_LEAST, fsType="xfs")
    target = served.publish(volume)
    wanted = CapacityRange(2 * XFS_LEAST)
    before = os.statvfs(target).f_blocks
    node, controller = served.provisioner.publishing, served.provisioner.volumes
    with pytest.raises(CapacityOutOfRange, match="call ControllerExpandVolume first"):
        node.expand(volume.volume_id, str(target), wanted)
    assert (controller.get(volume.volume_id), os.statvfs(target).f_blocks) == (volume, before)
    for _ in range(2):
        assert controller.expand(volume.volume_id, wanted, MULTI, PATIENT).capacity_bytes == 2 * XFS_LEAST
        for _ in range(2):
            assert node.expand(volume.volume_id, str(target), wanted) == 2 * XFS_LEAST
            assert os.statvfs(target).f_blocks > 1.9 * before
    assert node.expand(volume.volume_id, str(target), CapacityRange(XFS_LEAST)) == 2 * XFS_LEAST


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
def test_one_that_grew_while_nobody_used_it_has_grown_when_it_is_staged(served: Served, fs_type: str) -> None:
    volume = served.create("grows", XFS_LEAST, fsType=fs_type)
    served.provisioner.volumes.expand(volume.volume_id, CapacityRange(2 * XFS_LEAST), MULTI, PATIENT)
    target = served.publish(volume)
    assert os.statvfs(target).f_blocks >= 1.7 * XFS_LEAST / 4096


def test_programs_let_an_ext4_grow_only_where_the_kernel_may_not(served: Served) -> None:
    """Which of the two it was is told by the time of the last check, which a growth by programs needs."""
    volume = served.create("grows", SIZE)
    image = served.control / "volumes/grows/disk.img"
    request = ["debugfs", "-w", "-R", "set_super_value lastcheck 20200101000000", str(image)]
    subprocess.run(request, check=True, capture_output=True)
    served.provisioner.volumes.expand(volume.volume_id, CapacityRange(2 * SIZE), MULTI, PATIENT)
    assert os.statvfs(served.publish(volume)).f_blocks > SIZE // 4096
    served.unpublish(volume)
    served.until_detached()
    said = subprocess.run(["dumpe2fs", "-h", image], check=True, capture_output=True, text=True).stdout
    found = next(line for line in said.splitlines() if line.startswith("Last checked:"))
    assert ("2020" in found) == may_grow_ext4()


@pytest.mark.usefixtures("pool")
def test_a_restart_finds_what_is_published_and_goes_on(tmp_path: Path) -> None:
    settings = IMAGES.settings(tmp_path)
    with serving(IMAGES, tmp_path, unmount=False) as served:
        volume = served.create("kept", SIZE)
        (served.publish(volume) / "file").write_text("kept")
        raw = served.create("raw", SIZE, capability=BLOCK)
        served.publish(raw, BLOCK)
        devices = sorted(served.devices())
    assert len(devices) == 2
    with serving(IMAGES, tmp_path) as served:
        assert served.settings == settings
        assert sorted(served.devices()) == devices
        for found in (volume, raw):
            with pytest.raises(VolumeInUse):
                served.provisioner.volumes.delete(found.volume_id, PATIENT)
        served.publish(volume)
        served.publish(raw, BLOCK)
        assert sorted(served.devices()) == devices
        served.take_away(raw)
        served.take_away(volume)
        served.until_detached()


def test_devices_of_others_are_left_alone(served: Served, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    with loop_filesystem("ext4", tmp_path / "theirs") as theirs:
        volume = served.create("ours", SIZE)
        served.publish(volume)
        served.take_away(volume)
        served.until_detached()
        assert os.path.ismount(theirs.path)


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
def test_a_thin_one_on_a_full_pool_fails_in_the_pod_and_mounts_again(served: Served, pool: Path, fs_type: str) -> None:
    volume = served.create("thin", XFS_LEAST, fsType=fs_type)
    target = served.publish(volume)
    (target / "before").write_text("synced")
    os.sync()
    with full(pool):
        found = write_as_pod(target / "file", 64 * MIB)
        assert found.errno in (errno.EIO, errno.ENOSPC)
    served.unpublish(volume)
    target = served.publish(volume)
    assert (target / "before").read_text() == "synced"
    assert write_as_pod(target / "again", 64 * MIB).errno == 0
    assert served.provisioner.volumes.health(volume.volume_id).problems == ()


def test_a_preallocated_one_has_its_room_though_the_pool_is_full(served: Served, pool: Path) -> None:
    volume = served.create("thick", SIZE, thin="false")
    target = served.publish(volume)
    with full(pool):
        assert write_as_pod(target / "file", SIZE // 2).errno == 0


def test_a_tenant_cannot_leave_it(served: Served) -> None:
    """Hard links and renames end at the filesystem."""
    volume = served.create("jail", SIZE)
    target = served.publish(volume)
    (target / "file").touch()
    for move in (os.link, os.rename):
        for place in (served.control / "volumes", served.publish(served.create("neighbour", SIZE))):
            with pytest.raises(OSError, match="cross-device"):
                move(target / "file", place / "file")
    assert write_as_pod(target / "more", 2 * SIZE).errno == errno.ENOSPC
    assert served.occupied(volume) <= SIZE + 4096


def test_what_is_read_of_it_is_not_noted_in_the_pool(served: Served) -> None:
    served.create("read", SIZE)
    image = served.control / "volumes/read/disk.img"
    os.utime(image, (0, 0))  # relatime would note the next read
    assert image.read_bytes()
    assert image.stat().st_atime == 0


def test_growth_without_room_keeps_the_size_of_the_file(served: Served, pool: Path) -> None:
    volume = served.create("stays", SIZE, thin="false")
    image = served.control / "volumes/stays/disk.img"
    with full(pool), pytest.raises(Exception, match=r"full|can promise"):
        served.provisioner.volumes.expand(volume.volume_id, CapacityRange(4 * SIZE), MULTI, PATIENT)
    assert image.stat().st_size == SIZE
    assert _sizes(served) == {"stays": SIZE}


def test_an_ephemeral_one_is_mounted_where_it_is_published(tmp_path: Path) -> None:
    settings = allowing(settings_for(tmp_path, enforce="required"))
    pod = Pod(tmp_path / "targets")
    capability = Capability(AccessMode.SINGLE_NODE_SINGLE_WRITER, mount_flags=("noexec",))
    with running(settings) as provisioner:
        for _ in range(2):
            provisioner.publishing.publish(pod.wants(size="8Mi", capability=capability), PATIENT)
        found = [mount for mount in read_mountinfo() if mount.mount_point == str(pod.target())]
        assert [(mount.fs_type, "noexec" in mount.options) for mount in found] == [("ext4", True)]
        assert write_as_pod(pod.target() / "file", 16 * MIB).errno == errno.ENOSPC
        provisioner.publishing.unpublish(pod.volume_id(), str(pod.target()), PATIENT)
        assert not pod.target().exists()
        assert provisioner.volumes.list(0, "").volumes == []


def _sizes(served: Served) -> dict[str, int]:
    found: list[Volume] = served.provisioner.volumes.list(0, "").volumes
    return {volume.name: volume.capacity_bytes for volume in found}
