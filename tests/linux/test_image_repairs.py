"""What a crash left of an image's filesystem is mended before a mount, and what is corrupt is left as it was found."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from provisioner import loops
from provisioner.errors import OutOfCapacity, VolumeInUse, VolumeQuarantined
from provisioner.linux.fsresize import may_grow_ext4
from provisioner.model import CapacityRange
from tests.support.disks import full
from tests.support.limited import MIB
from tests.support.means import IMAGES, Served, serving
from tests.support.provisioned import MULTI, PATIENT

SIZE = 32 * MIB
XFS_LEAST = 300 * MIB


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
def test_a_corrupt_one_is_left_alone_and_the_checker_speaks(served: Served, fs_type: str) -> None:
    volume = served.create("corrupt", XFS_LEAST, fsType=fs_type)
    image = served.control / "volumes/corrupt/disk.img"
    with image.open("r+b") as file:
        for at_byte in (0, 128 * MIB):  # the superblock and the first of its copies that ext4 or XFS would take
            file.seek(at_byte)
            file.write(b"\x5a" * 65536)
    if fs_type == "ext4":
        _destroy_all_superblocks(image)
    before = image.read_bytes()
    with pytest.raises(VolumeQuarantined, match=r"(?i)bad magic number|valid superblock"):
        served.publish(volume)
    assert image.read_bytes() == before
    served.until_detached()
    assert served.provisioner.volumes.health(volume.volume_id).problems == ()  # until somebody stages it


def test_what_a_checker_that_gives_up_has_changed_is_undone(served: Served) -> None:
    volume = served.create("corrupt", SIZE)
    image = served.control / "volumes/corrupt/disk.img"
    _break(image, "mkdir d", "mkdir d/x", "clri d", "set_super_value state 2")
    before = image.read_bytes()
    for _ in range(2):
        with pytest.raises(VolumeQuarantined, match="INCONSISTENCY; RUN fsck MANUALLY") as raised:
            served.publish(volume)
        assert "e2undo" not in str(raised.value)
        assert image.read_bytes() == before
    served.until_detached()
    assert os.listdir(served.control / "staging") == []
    subprocess.run(["e2fsck", "-y", image], check=False, capture_output=True)  # a person
    served.publish(volume)


@pytest.mark.skipif(may_grow_ext4(), reason="one that says it is clean is checked only to grow by programs")
def test_a_grown_one_that_is_corrupt_is_left_alone_too(served: Served) -> None:
    volume = served.create("corrupt", SIZE)
    image = served.control / "volumes/corrupt/disk.img"
    _break(image, "mkdir d", "mkdir d/x", "clri d")  # it is said to be clean
    served.provisioner.volumes.expand(volume.volume_id, CapacityRange(2 * SIZE), MULTI, PATIENT)
    before = image.read_bytes()
    with pytest.raises(VolumeQuarantined, match="INCONSISTENCY; RUN fsck MANUALLY"):
        served.publish(volume)
    served.until_detached()
    assert image.read_bytes() == before


def test_one_whose_growth_was_killed_is_mended_as_the_refusal_says(served: Served) -> None:
    volume = served.create("cut", SIZE)
    (served.publish(volume) / "before").write_text("kept")
    served.unpublish(volume)
    served.until_detached()
    served.provisioner.volumes.expand(volume.volume_id, CapacityRange(16 * SIZE), MULTI, PATIENT)
    image = served.control / "volumes/cut/disk.img"
    strace = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=pwrite64:signal=SIGKILL:when=12"]
    killed = subprocess.run([*strace, "resize2fs", str(image)], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    before = image.read_bytes()
    for _ in range(2):
        with pytest.raises(VolumeQuarantined, match=r"cut/disk\.img in its pool, then have 'e2fsck -f' mend it"):
            served.publish(volume)
        assert image.read_bytes() == before
    served.until_detached()
    subprocess.run(["e2fsck", "-f", "-y", image], check=False, capture_output=True)  # an administrator
    target = served.publish(volume)
    assert (target / "before").read_text() == "kept"
    assert os.statvfs(target).f_blocks > 15 * SIZE // 4096


@pytest.mark.usefixtures("pool")
def test_what_somebody_holds_open_is_checked_all_the_same(tmp_path: Path) -> None:
    """As after a stage that was refused: the device stays while udev, or anybody, has it open."""
    with serving(IMAGES, tmp_path) as served:
        volume = served.create("held", SIZE)
    image = served.control / "volumes/held/disk.img"
    _break(image, "mkdir d", "mkdir d/x", "clri d", "set_super_value state 2")
    before = image.read_bytes()
    with _held(image) as device_fd, serving(IMAGES, tmp_path) as served:
        assert os.pread(device_fd, SIZE, 0) == before  # and so the device's cache has it
        for _ in range(2):
            with pytest.raises(VolumeQuarantined, match="INCONSISTENCY; RUN fsck MANUALLY"):
                served.publish(volume)
            assert image.read_bytes() == before
        served.provisioner.volumes.expand(volume.volume_id, CapacityRange(2 * SIZE), MULTI, PATIENT)
        subprocess.run(["e2fsck", "-f", "-y", image], check=False, capture_output=True)  # a person, beside the device
        target = served.publish(volume)
        assert os.statvfs(target).f_blocks > SIZE // 4096
        assert len(served.devices()) == 1
        served.unpublish(volume)
    served.until_detached()
    subprocess.run(["e2fsck", "-f", "-n", image], check=True, capture_output=True)


@pytest.mark.usefixtures("pool")
def test_what_a_program_has_for_itself_alone_is_no_corrupt_one(tmp_path: Path) -> None:
    with serving(IMAGES, tmp_path) as served:
        volume = served.create("held", SIZE)
    image = served.control / "volumes/held/disk.img"
    _break(image, "set_super_value state 2")
    with _held(image) as device_fd, serving(IMAGES, tmp_path) as served:
        alone_fd = os.open(f"/proc/self/fd/{device_fd}", os.O_RDONLY | os.O_EXCL)
        try:
            with pytest.raises(VolumeInUse, match="for itself alone"):
                served.publish(volume)
        finally:
            os.close(alone_fd)
        served.publish(volume)
        served.unpublish(volume)
    served.until_detached()


@contextmanager
def _held(image: Path) -> Iterator[int]:
    """Keep a device of an image open, as another process may that looks at it."""
    with image.open("r+b") as file, loops.attached(file.fileno(), autoclear=True) as device_fd:
        yield device_fd


def test_nothing_is_mended_where_nothing_can_be_noted(served: Served, pool: Path) -> None:
    broken, sound = served.create("broken", SIZE, thin="false"), served.create("sound", SIZE, thin="false")
    image = served.control / "volumes/broken/disk.img"
    _break(image, "mkdir d", "mkdir d/x", "clri d/x", "set_super_value state 2")
    before = image.read_bytes()
    with full(pool):
        with pytest.raises(OutOfCapacity, match="no room to note"):
            served.publish(broken)
        assert image.read_bytes() == before
        served.provisioner.publishing.stage(sound.volume_id, str(served.targets / "sound.staged"), MULTI)
    served.publish(broken)
    subprocess.run(["umount", "-n", served.targets / "sound.staged"], check=True)


def _break(image: Path, *requests: str) -> None:
    for request in requests:
        subprocess.run(["debugfs", "-w", "-R", request, image], check=True, capture_output=True)


def _destroy_all_superblocks(image: Path) -> None:
    with image.open("r+b") as file:
        for group in range(1, 3):
            file.seek(group * 128 * MIB)
            file.write(b"\x5a" * 65536)


def test_what_a_crash_left_is_mended_before_a_mount(served: Served) -> None:
    volume = served.create("mended", SIZE)
    image = served.control / "volumes/mended/disk.img"
    subprocess.run(["debugfs", "-w", "-R", "set_super_value state 2", str(image)], check=True, capture_output=True)
    target = served.publish(volume)
    served.unpublish(volume)
    said = subprocess.run(["dumpe2fs", "-h", str(image)], check=True, capture_output=True, text=True).stdout
    assert "Filesystem state:         clean" in said
    assert target.parent.exists()
