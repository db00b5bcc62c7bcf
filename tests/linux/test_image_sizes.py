"""An image has the size of its record again, whatever a growth that was cut short left, and loses no byte by that."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from provisioner import loops
from provisioner.backends import Backend
from provisioner.errors import OperationPending
from provisioner.linux.statx import AT_SYMLINK_NOFOLLOW, statx
from provisioner.model import AccessMode, Capability, CapacityRange, HealthProblem, Volume
from provisioner.records import Record
from tests.support.limited import MIB
from tests.support.means import IMAGES, Means, Served, serving
from tests.support.provisioned import MULTI, PATIENT

SIZE = 304 * MIB  # XFS takes no less
MORE = 384 * MIB
MOST = 448 * MIB
BLOCK = Capability(AccessMode.SINGLE_NODE_MULTI_WRITER, block=True)
ON_XFS = replace(IMAGES, size=2048 * MIB)
POOL = replace(ON_XFS, grows_as_ext4=True)
CHECKERS = {"ext4": ["e2fsck", "-n", "-f"], "xfs": ["xfs_repair", "-n"]}


@pytest.fixture(params=["ext4", "xfs"])
def fs_type(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def images() -> Means:
    return POOL


@pytest.mark.usefixtures("pool")
def test_room_that_no_record_tells_of_is_no_tenants(tmp_path: Path, fs_type: str) -> None:
    with serving(POOL, tmp_path) as served:
        volume = served.create("kept", SIZE, fsType=fs_type)
        os.truncate(_image(served), MOST)
        assert _problems(served, volume) == ()  # nothing shows it
    with serving(POOL, tmp_path) as served:
        target = served.publish(volume)
        assert _df(target) <= SIZE
        assert _image(served).stat().st_size == loops.size_of(served.devices()[0]) == SIZE
        assert _problems(served, volume) == ()


def test_a_growth_that_was_cut_short_and_then_a_smaller_one_lose_nothing(served: Served, fs_type: str) -> None:
    means = POOL if fs_type == "ext4" else ON_XFS
    served = Served(means, served.settings, served.provisioner, served.targets)
    volume = served.create("grows", SIZE, fsType=fs_type)
    os.truncate(_image(served), MOST)
    (served.publish(volume) / "before").write_text("kept")
    os.truncate(_image(served), MOST)  # and again, while it is mounted
    served.provisioner.volumes.expand(volume.volume_id, CapacityRange(MORE), MULTI, PATIENT)
    target = served.grow(volume, MORE)
    assert SIZE < _df(target) <= MORE
    assert _image(served).stat().st_size == MORE
    assert (target / "before").read_text() == "kept"
    served.unpublish(volume)
    served.until_detached()
    _check(fs_type, _image(served))


def test_a_record_that_cannot_be_written_takes_only_what_was_added(served: Served, fs_type: str) -> None:
    """As an earlier release may have left it: the filesystem has more than its record says."""
    volume = served.create("larger", SIZE, fsType=fs_type)
    os.truncate(_image(served), MORE)
    _fill_file(fs_type, _image(served), served.targets.parent / "mounted")
    assert [problem.reason for problem in _problems(served, volume)] == ["LimitLost"]
    backend, record = _backend(served)
    with pytest.raises(FileNotFoundError), backend.growing(record, MOST):
        os.stat(served.targets / "no record")
    assert _image(served).stat().st_size == MORE
    target = served.publish(volume)
    assert SIZE < _df(target) <= MORE
    assert _image(served).stat().st_size == MORE
    served.unpublish(volume)
    served.until_detached()
    _check(fs_type, _image(served))


@pytest.mark.usefixtures("pool")
def test_a_raw_block_volume_shows_what_its_record_says(tmp_path: Path) -> None:
    with serving(POOL, tmp_path) as served:
        volume = served.create("raw", MIB, BLOCK)
        os.truncate(_image(served), 2 * MIB)
        device = served.publish(volume, BLOCK)
        assert _shown(device) == _image(served).stat().st_size == MIB
        os.truncate(_image(served), 4 * MIB)
        served.provisioner.volumes.expand(volume.volume_id, CapacityRange(2 * MIB), BLOCK, PATIENT)
        assert _shown(device) == _image(served).stat().st_size == 2 * MIB
        backend, record = _backend(served)
        with backend.growing(record, 4 * MIB):
            assert _shown(device) == 2 * MIB  # until the record is there
        assert _image(served).stat().st_size == 4 * MIB  # and here the process was killed
        served.unpublish(volume)
    with serving(POOL, tmp_path) as served:
        assert _image(served).stat().st_size == 2 * MIB
        assert _problems(served, volume) == ()


@pytest.mark.usefixtures("pool")
def test_what_was_written_to_a_raw_block_volume_stays(tmp_path: Path) -> None:
    with serving(POOL, tmp_path) as served:
        volume = served.create("raw", MIB, BLOCK)
        with _image(served).open("r+b") as file:
            os.pwrite(file.fileno(), b"written", 2 * MIB - 4096)
            file.truncate(2 * MIB)
    with serving(POOL, tmp_path) as served:
        assert _shown(served.publish(volume, BLOCK)) == 2 * MIB
        assert [problem.reason for problem in _problems(served, volume)] == ["LimitLost"]
        served.take_away(volume)
        served.until_detached()


def test_a_device_that_a_kill_kept_from_growing_shows_it_after_the_next_start(pool: Path, tmp_path: Path) -> None:
    assert pool.exists()
    with serving(POOL, tmp_path, unmount=False) as served:
        volume = served.create("raw", MIB, BLOCK)
        device = served.publish(volume, BLOCK)
        backend, record = _backend(served)
        backend.grown = _killed  # type: ignore[method-assign]  # a kill cannot be had here
        served.provisioner.volumes.expand(volume.volume_id, CapacityRange(2 * MIB), BLOCK, PATIENT)
        assert (_shown(device), record.capacity_bytes) == (MIB, MIB)
    with serving(POOL, tmp_path) as served:
        assert _shown(device) == 2 * MIB
        served.take_away(volume)
        served.until_detached()


def test_a_node_waits_for_a_growth_that_still_runs(served: Served) -> None:
    volume = served.create("busy", SIZE)
    target = served.publish(volume)
    publishing = served.provisioner.publishing
    with publishing._operations.claim(volume.volume_id), pytest.raises(OperationPending):
        publishing.expand(volume.volume_id, str(target), CapacityRange(SIZE))


def _killed(record: Record) -> None:
    """Do nothing: that is what a kill leaves undone."""
    assert record.capacity_bytes == 2 * MIB


def _image(served: Served) -> Path:
    return next((served.control / "volumes").glob("*/disk.img"))


def _df(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize


def _shown(device: Path) -> int:
    number = loops.number_of(statx(device, flags=AT_SYMLINK_NOFOLLOW))
    assert number is not None
    return loops.size_of(number)


def _problems(served: Served, volume: Volume) -> tuple[HealthProblem, ...]:
    return served.provisioner.volumes.health(volume.volume_id).problems


def _backend(served: Served) -> tuple[Backend, Record]:
    contents = served.provisioner._pools.pools[0].known
    assert contents is not None
    record = contents.after("", 1)[0]
    return contents.backends.of(record), record


def _fill_file(fs_type: str, image: Path, mounted: Path) -> None:
    """Let a filesystem have all of its file."""
    if fs_type == "ext4":
        subprocess.run(["resize2fs", image], check=True, capture_output=True)
        return
    mounted.mkdir()
    subprocess.run(["mount", "-n", "-o", "loop", image, mounted], check=True)
    try:
        subprocess.run(["xfs_growfs", mounted], check=True, capture_output=True)
    finally:
        subprocess.run(["umount", "-n", mounted], check=True)


def _check(fs_type: str, image: Path) -> None:
    said = subprocess.run([*CHECKERS[fs_type], image], check=False, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
