"""What who has a raw block volume's device open may do to it, for the kernel asks for no capability."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from provisioner import loops
from provisioner.linux.loop import LOOP_CLR_FD
from provisioner.linux.statx import AT_SYMLINK_NOFOLLOW, statx
from provisioner.model import AccessMode, Capability
from tests.support.limited import MIB
from tests.support.means import IMAGES, Served, serving
from tests.support.powercut import power_disk
from tests.support.provisioned import PATIENT, at

LOOP_CHANGE_FD = 0x4C06
SIZE = 8 * MIB
BLOCK = Capability(AccessMode.SINGLE_NODE_MULTI_WRITER, block=True)


def detach(device: Path) -> None:
    """Detach a device as its tenant can."""
    fd = os.open(device, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, LOOP_CLR_FD)
    finally:
        os.close(fd)


def test_a_tenant_who_detaches_his_device_never_sees_the_next_volume(served: Served) -> None:
    mine, other = (served.create(name, SIZE, capability=BLOCK) for name in ("mine", "other"))
    device = served.publish(mine, BLOCK)
    device.write_bytes(b"mine")
    detach(device)
    assert served.publish(other, BLOCK).stat().st_rdev != device.stat().st_rdev
    assert device.read_bytes()[:4] == b"mine"
    second = served.targets / "second"
    served.provisioner.publishing.publish(at(mine.volume_id, second, BLOCK), PATIENT)
    assert second.stat().st_rdev == device.stat().st_rdev, "two devices of one image do not see each other's writes"
    for volume in (mine, other):
        served.provisioner.publishing.unpublish(volume.volume_id, str(second), PATIENT)
        served.take_away(volume)
    served.until_detached()


def test_a_device_stays_its_volumes_whatever_a_tenant_lets_it_show(served: Served, tmp_path: Path) -> None:
    volume = served.create("raw", SIZE, capability=BLOCK)
    target, later = served.targets / "readonly", served.targets / "later"
    served.provisioner.publishing.publish(at(volume.volume_id, target, BLOCK, readonly=True), PATIENT)
    number = loops.number_of(statx(str(target), flags=AT_SYMLINK_NOFOLLOW))
    assert number is not None
    (tmp_path / "tenants").write_bytes(b"t" * SIZE)
    with (tmp_path / "tenants").open("rb") as file, loops.opened(number, readonly=True) as fd:
        fcntl.ioctl(fd, LOOP_CHANGE_FD, file.fileno())
    assert target.read_bytes()[:1] == b"t"
    served.provisioner.publishing.publish(at(volume.volume_id, later, BLOCK, readonly=True), PATIENT)
    assert later.read_bytes()[:1] == b"\0", "the next pod gets the volume itself"
    for path in (later, target):
        served.provisioner.publishing.unpublish(volume.volume_id, str(path), PATIENT)
        assert not path.exists()
    assert loops.image_behind(number) is None
    served.take_away(volume)


@pytest.mark.usefixtures("pool")
def test_a_device_that_shows_nothing_any_more_can_be_taken_away(tmp_path: Path) -> None:
    """It was detached while no driver held it."""
    with serving(IMAGES, tmp_path, unmount=False) as served:
        volume = served.create("raw", SIZE, capability=BLOCK)
        device = served.publish(volume, BLOCK)
    detach(device)
    with serving(IMAGES, tmp_path) as served:
        served.take_away(volume)
        assert not device.exists()
        served.until_detached()


def test_a_dead_disk_with_an_image_keeps_no_other_pool_from_looking_at_its_own(served: Served, tmp_path: Path) -> None:
    volume = served.create("raw", SIZE, capability=BLOCK)
    served.publish(volume, BLOCK)
    folder = tmp_path / "dead"
    folder.mkdir()
    with power_disk("xfs", folder) as dead:
        image = dead.path / ".csi-local-path/volumes/v/disk.img"
        image.parent.mkdir(parents=True)
        image.write_bytes(bytes(SIZE))
        fd = os.open(image, os.O_RDWR)
        with loops.attached(fd, autoclear=True):
            os.close(fd)
            dead.cut()
            assert len(served.devices()) == 1
    served.take_away(volume)
    served.until_detached()
