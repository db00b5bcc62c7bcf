"""A size that holds: the same promises for every means, tried as a tenant would."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner.errors import CapacityOutOfRange, OutOfCapacity, VolumeConflict
from provisioner.linux.fallocate import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, fallocate
from provisioner.model import CapacityRange
from tests.support.disks import until
from tests.support.limited import MIB, WAYS, allocate_as_pod, finish, run_as_pod, start_filling, write_as_pod
from tests.support.means import MEANS, Means, Served, serving
from tests.support.provisioned import MULTI, PATIENT

SIZE = 32 * MIB
BLOCK = 4096


@pytest.fixture(params=MEANS, ids=lambda means: means.name)
def means(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Means]:
    """Each means in turn, with its filesystem mounted."""
    found: Means = request.param
    with found.filesystem(tmp_path):
        yield found


@pytest.fixture
def served(means: Means, tmp_path: Path) -> Iterator[Served]:
    """A pool at work."""
    with serving(means, tmp_path) as found:
        yield found


def stored_in(folder: Path) -> int:
    """Add up what the files of a folder occupy, once it is on the disk."""
    os.sync()
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir() if path.is_file())


@pytest.mark.parametrize("way", WAYS)
def test_four_at_once_store_the_size_and_no_more_whichever_way_they_write(served: Served, way: str) -> None:
    volume = served.create("full", SIZE)
    target, neighbour = served.publish(volume), served.publish(served.create("neighbour", SIZE))
    writers = [start_filling(target / f"file{n}", way, 2 * SIZE) for n in range(4)]
    found = [finish(writer) for writer in writers]
    assert {writer.errno for writer in found} == {served.means.refused}
    assert SIZE * served.means.usable <= sum(writer.bytes for writer in found) <= SIZE
    maps = int(SIZE * served.means.maps) if way == "sparse" else 0
    assert stored_in(target) <= SIZE + maps
    assert served.occupied(volume) <= SIZE + BLOCK + maps
    assert write_as_pod(neighbour / "file", SIZE // 2).errno == 0


def test_what_was_punched_out_can_be_filled_again_and_no_more(served: Served) -> None:
    volume = served.create("holes", SIZE)
    target = served.publish(volume)
    first = write_as_pod(target / "file", int(SIZE * served.means.usable) - 2 * MIB)
    assert first.errno == 0
    with (target / "file").open("r+b") as file:
        for at in range(0, first.bytes, 2 * MIB):  # whole extents, for btrfs frees no less
            fallocate(file.fileno(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, MIB)
    assert stored_in(target) <= first.bytes // 2 + MIB
    writers = [start_filling(target / f"more{n}", "append", SIZE) for n in range(4)]
    assert {finish(writer).errno for writer in writers} == {served.means.refused}
    assert SIZE * served.means.usable <= stored_in(target) <= SIZE
    assert served.occupied(volume) <= SIZE + BLOCK


def test_a_full_volume_is_emptied_by_its_pod_and_takes_as_much_again(served: Served) -> None:
    target = served.publish(served.create("full", SIZE))
    for name in ("file", "more"):
        finish(start_filling(target / name, "append", 2 * SIZE))
    run_as_pod(target, "rm", "-f", "file", "more")
    os.sync()
    assert write_as_pod(target / "again", SIZE // 2).errno == 0


def test_fallocate_is_bound_and_holes_are_free(served: Served) -> None:
    target = served.publish(served.create("full", SIZE))
    file = target / "file"
    file.touch()
    file.chmod(0o666)
    os.truncate(file, 100 * SIZE)  # a hole takes nothing
    with file.open("r+b") as open_file:
        os.pwrite(open_file.fileno(), b"x", 99 * SIZE)
        assert allocate_as_pod(file, 2 * SIZE) == served.means.refused
        fallocate(open_file.fileno(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 100 * SIZE)
    os.sync()
    assert write_as_pod(target / "another", SIZE // 2).errno == 0


def test_a_volume_grows_while_it_is_written(served: Served) -> None:
    volume = served.create("grows", SIZE)
    target = served.publish(volume)
    assert write_as_pod(target / "file", 2 * SIZE).errno == served.means.refused
    grown = served.provisioner.volumes.expand(volume.volume_id, CapacityRange(2 * SIZE), MULTI, PATIENT)
    assert grown.capacity_bytes == 2 * SIZE
    target = served.grow(volume, 2 * SIZE)
    more = write_as_pod(target / "more", 2 * SIZE)
    assert more.errno == served.means.refused
    assert served.means.usable * SIZE <= more.bytes <= 1.3 * SIZE
    again = served.provisioner.volumes.expand(volume.volume_id, CapacityRange(SIZE), MULTI, PATIENT)
    assert again.capacity_bytes == 2 * SIZE  # it is large enough, and never shrinks


def test_growth_beyond_the_disk_keeps_the_old_size(served: Served) -> None:
    volume = served.create("stays", SIZE)
    target = served.publish(volume)
    with pytest.raises(OutOfCapacity):
        served.provisioner.volumes.expand(volume.volume_id, CapacityRange(2**40), MULTI, PATIENT)
    with pytest.raises(CapacityOutOfRange):
        served.provisioner.volumes.expand(volume.volume_id, CapacityRange(0, SIZE // 2), MULTI, PATIENT)
    found = write_as_pod(target / "file", 2 * SIZE)
    assert (found.errno, found.bytes <= SIZE) == (served.means.refused, True)


def test_statistics_are_the_size_and_what_is_used(served: Served) -> None:
    volume = served.create("counted", SIZE)
    target = served.publish(volume)
    before = served.provisioner.publishing.statistics(volume.volume_id, str(target)).bytes
    assert write_as_pod(target / "file", SIZE // 2).errno == 0
    os.sync()
    found = served.provisioner.publishing.statistics(volume.volume_id, str(target)).bytes
    assert SIZE * served.means.usable <= found.total <= SIZE
    assert SIZE // 2 <= found.used - before.used <= SIZE * 0.6
    assert 0.95 * found.total <= found.used + found.available <= found.total  # ext4 keeps a few blocks back


def test_a_limit_holds_again_after_a_restart(means: Means, tmp_path: Path) -> None:
    with serving(means, tmp_path) as served:
        volume = served.create("kept", SIZE)
    with serving(means, tmp_path) as served:
        target = served.publish(volume)
        found = write_as_pod(target / "file", 2 * SIZE)
        assert (found.errno, found.bytes <= SIZE) == (means.refused, True)
        assert served.provisioner.volumes.health(volume.volume_id).problems == ()


def test_a_retry_gives_the_same_volume_and_another_means_is_a_conflict(served: Served) -> None:
    first = served.create("again", SIZE)
    assert served.create("again", SIZE) == first
    assert served.create("again", SIZE, backend="auto") == first
    with pytest.raises(VolumeConflict, match="backend"):
        served.create("again", SIZE, backend="directory", enforce="besteffort", thin="false")


def test_all_that_can_be_promised_can_be_created(served: Served) -> None:
    parameters = served.means.wanted("any", SIZE).parameters
    until(served.is_measured)
    found = served.provisioner.volumes.capacity(parameters, (MULTI,))
    assert found.maximum_volume_bytes <= found.available_bytes
    assert served.create("all", found.maximum_volume_bytes).capacity_bytes == found.maximum_volume_bytes
    with pytest.raises(OutOfCapacity):
        served.create("more", SIZE)


def test_a_full_volume_is_deleted_and_its_room_comes_back(served: Served) -> None:
    before = served.provisioner.volumes.capacity(served.means.wanted("any", SIZE).parameters, (MULTI,))
    volume = served.create("full", 3 * SIZE)
    assert write_as_pod(served.publish(volume) / "file", 4 * SIZE).errno == served.means.refused
    served.take_away(volume)
    until(lambda: os.listdir(served.control / "trash") == [])

    def is_back() -> bool:
        os.sync()  # filesystems free what was unlinked when they find the time
        after = served.provisioner.volumes.capacity(served.means.wanted("any", SIZE).parameters, (MULTI,))
        # Tables may have grown a little, and btrfs sets room for them aside by the chunk.
        return after.available_bytes >= before.available_bytes - SIZE

    until(is_back)
