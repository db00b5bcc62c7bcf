"""Raw block volumes: devices that several pods share, that grow at once, and that nobody leaves behind."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from provisioner import loops
from provisioner.errors import (
    InvalidRequest,
    Unsupported,
    VolumeConflict,
)
from provisioner.linux.statx import AT_SYMLINK_NOFOLLOW, statx
from provisioner.model import AccessMode, Capability, CapacityRange
from tests.support.limited import MIB
from tests.support.means import IMAGES, MEANS, Means, Served, serving
from tests.support.provisioned import MULTI, PATIENT, at

SIZE = 32 * MIB
XFS_LEAST = 300 * MIB
BLOCK = Capability(AccessMode.SINGLE_NODE_MULTI_WRITER, block=True)


def test_raw_block_is_a_device_for_several_pods(served: Served) -> None:
    volume = served.create("raw", SIZE, capability=BLOCK)
    assert volume.grows_on_node is False
    first = served.publish(volume, BLOCK)
    second = served.targets / "second"
    served.provisioner.publishing.publish(at(volume.volume_id, second, BLOCK), PATIENT)
    assert stat.S_ISBLK(first.stat().st_mode)
    assert first.stat().st_rdev == second.stat().st_rdev
    assert _blockdev(first) == SIZE
    found = served.provisioner.publishing.statistics(volume.volume_id, str(first))
    assert (found.bytes.total, found.inodes) == (SIZE, None)
    served.provisioner.volumes.expand(volume.volume_id, CapacityRange(2 * SIZE), BLOCK, PATIENT)
    assert _blockdev(second) == 2 * SIZE  # at once
    served.provisioner.publishing.unpublish(volume.volume_id, str(second), PATIENT)
    assert not second.exists()
    assert len(served.devices()) == 1
    served.take_away(volume)
    assert not first.exists()
    served.until_detached()


def _blockdev(path: Path) -> int:
    said = subprocess.run(["blockdev", "--getsize64", str(path)], check=True, capture_output=True, text=True).stdout
    return int(said)


def test_a_readonly_block_publication_refuses_writes(served: Served) -> None:
    volume = served.create("raw", SIZE, capability=BLOCK)
    writable = served.publish(volume, BLOCK)
    readonly = served.targets / "readonly"
    served.provisioner.publishing.publish(at(volume.volume_id, readonly, BLOCK, readonly=True), PATIENT)
    served.provisioner.publishing.publish(at(volume.volume_id, readonly, BLOCK, readonly=True), PATIENT)
    writable.write_bytes(b"x" * 4096)
    with pytest.raises(OSError, match=r"Read-only|not permitted"):
        _write(readonly)
    with pytest.raises(VolumeConflict):
        served.provisioner.publishing.publish(at(volume.volume_id, writable, BLOCK, readonly=True), PATIENT)
    assert len(served.devices()) == 2
    served.provisioner.publishing.unpublish(volume.volume_id, str(readonly), PATIENT)
    assert served.devices() == [loops.number_of(statx(writable, flags=AT_SYMLINK_NOFOLLOW))]
    served.take_away(volume)
    served.until_detached()


def _write(device: Path) -> None:
    fd = os.open(device, os.O_WRONLY)
    try:
        os.write(fd, b"y" * 4096)
        os.fsync(fd)
    finally:
        os.close(fd)


def test_raw_block_and_filesystems_are_not_taken_for_each_other(served: Served) -> None:
    raw, plain = served.create("raw", SIZE, capability=BLOCK), served.create("plain", SIZE)
    with pytest.raises(Unsupported, match="block volume"):
        served.publish(raw)
    with pytest.raises(Unsupported, match="mount volume"):
        served.publish(plain, BLOCK)
    for name in ("raw", "plain"):
        with pytest.raises((VolumeConflict, InvalidRequest)):
            served.create(name, SIZE, capability=MULTI if name == "raw" else BLOCK)
    with pytest.raises(InvalidRequest, match="only 'image' has block volumes"):
        served.create("directory", SIZE, capability=BLOCK, backend="directory", enforce="besteffort", thin="false")
    assert served.create("auto", SIZE, capability=BLOCK, backend="auto").capacity_bytes == SIZE


@pytest.mark.parametrize(
    "means", [means for means in MEANS if "backend" not in means.parameters], ids=lambda means: means.name
)
def test_no_other_backend_gives_raw_block(means: Means, tmp_path: Path) -> None:
    """Not one that holds either: it is refused when it is created, by name; `auto` takes an image."""
    with means.filesystem(tmp_path), serving(means, tmp_path) as served:
        backend = means.name.partition(" ")[0]
        with pytest.raises(InvalidRequest, match=f"cannot give '{backend}': .*only 'image' has block volumes"):
            served.create("refused", SIZE, capability=BLOCK, backend=backend)
        assert list((served.control / "volumes").iterdir()) == []
        served.create("taken", SIZE, capability=BLOCK)
        assert (served.control / "volumes/taken/disk.img").stat().st_size == SIZE


@pytest.mark.usefixtures("pool")
def test_a_device_that_a_killed_process_left_is_let_go_at_the_next_start(tmp_path: Path) -> None:
    with serving(IMAGES, tmp_path) as served:
        served.create("raw", SIZE, capability=BLOCK)
        image = os.open(served.control / "volumes/raw/disk.img", os.O_RDWR)
    with loops.attached(image, autoclear=False):
        pass
    os.close(image)
    assert len(served.devices()) == 1
    with serving(IMAGES, tmp_path) as served:
        served.until_detached()
