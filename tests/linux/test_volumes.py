"""The life of volumes on a real pool."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from provisioner.assembly import Provisioner
from provisioner.errors import (
    BadToken,
    Cancelled,
    CapacityOutOfRange,
    InvalidRequest,
    OperationPending,
    OutOfCapacity,
    VolumeConflict,
    VolumeInUse,
    VolumeNotFound,
)
from provisioner.model import AccessMode, Capability, CapacityRange, NewVolume
from provisioner.settings import Settings
from tests.support.disks import until
from tests.support.provisioned import GIB, MIB, MULTI, PATIENT, at, running, wanted


class GivesUpAt:
    """A caller that goes away at its nth look."""

    def __init__(self, n: int) -> None:
        self.left = n

    def check(self) -> None:
        self.left -= 1
        if self.left <= 0:
            raise Cancelled("gone")


def test_create_makes_a_directory_with_its_record(provisioner: Provisioner, control: Path) -> None:
    volume = provisioner.volumes.create(wanted("pvc-1", 5 * MIB), PATIENT)
    assert volume.capacity_bytes == 5 * MIB
    folder = control / "volumes" / "pvc-1"
    assert volume.volume_id.endswith(".pvc-1")
    assert sorted(os.listdir(folder)) == ["data", "volume.json"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "data").stat().st_mode) == 0o770
    until(lambda: os.listdir(control / "staging") == [])  # the measurer, just started, writes its file there too


def test_create_gives_the_root_its_owner_and_mode_whatever_the_umask(provisioner: Provisioner, control: Path) -> None:
    before = os.umask(0o077)
    try:
        provisioner.volumes.create(wanted("owned", mode="2775", uid="1000", gid="2000"), PATIENT)
    finally:
        os.umask(before)
    found = (control / "volumes" / "owned" / "data").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o2775, 1000, 2000)


def test_create_again_gives_the_same_volume(provisioner: Provisioner) -> None:
    first = provisioner.volumes.create(wanted("again", 3 * MIB), PATIENT)
    assert provisioner.volumes.create(wanted("again", 3 * MIB), PATIENT) == first
    assert provisioner.volumes.create(wanted("again", MIB, limit=4 * MIB), PATIENT) == first
    metadata = {"csi.storage.k8s.io/pvc/name": "data", "csi.storage.k8s.io/pvc/namespace": "shop"}
    assert provisioner.volumes.create(NewVolume("again", CapacityRange(), (MULTI,), metadata), PATIENT) == first


def test_create_again_after_an_expansion_still_fits_the_first_request(provisioner: Provisioner) -> None:
    volume = provisioner.volumes.create(wanted("grown"), PATIENT)
    provisioner.volumes.expand(volume.volume_id, CapacityRange(8 * MIB), None, PATIENT)
    assert provisioner.volumes.create(wanted("grown"), PATIENT).capacity_bytes == 8 * MIB


@pytest.mark.parametrize(
    "other", [wanted("same", 9 * MIB), wanted("same", MIB, limit=MIB), wanted("same", 2 * MIB, mode="0700")]
)
def test_create_with_the_same_name_but_otherwise_is_a_conflict(provisioner: Provisioner, other: NewVolume) -> None:
    provisioner.volumes.create(wanted("same", 2 * MIB), PATIENT)
    with pytest.raises(VolumeConflict, match="exists"):
        provisioner.volumes.create(other, PATIENT)


@pytest.mark.parametrize("name", ["a/../../b", "ÄÖ", "UPPER", ".hidden", "_" * 64, "x" * 128, "\N{SNOWMAN}" * 40])
def test_names_that_are_no_safe_folder_become_a_digest(provisioner: Provisioner, control: Path, name: str) -> None:
    volume = provisioner.volumes.create(wanted(name), PATIENT)
    assert len(volume.volume_id.encode()) <= 128
    assert volume.name == name
    (folder,) = os.listdir(control / "volumes")
    assert folder.startswith("_")
    assert provisioner.volumes.create(wanted(name), PATIENT) == volume
    provisioner.volumes.delete(volume.volume_id, PATIENT)
    assert os.listdir(control / "volumes") == []


def test_create_without_a_size_takes_the_default_within_the_limit(provisioner: Provisioner) -> None:
    assert provisioner.volumes.create(wanted("default", 0), PATIENT).capacity_bytes == GIB
    assert provisioner.volumes.create(wanted("limited", 0, limit=MIB), PATIENT).capacity_bytes == MIB


def test_create_refuses_what_no_size_satisfies(provisioner: Provisioner, control: Path) -> None:
    with pytest.raises(CapacityOutOfRange, match="no size is both"):
        provisioner.volumes.create(wanted("odd", 2 * MIB, limit=MIB), PATIENT)
    assert os.listdir(control / "volumes") == []


def test_create_beyond_the_room_is_refused_and_counts_nothing(provisioner: Provisioner) -> None:
    before = provisioner.volumes.capacity({}, ()).available_bytes
    with pytest.raises(OutOfCapacity, match="can promise"):
        provisioner.volumes.create(wanted("huge", 2**60), PATIENT)
    assert abs(provisioner.volumes.capacity({}, ()).available_bytes - before) < GIB


@pytest.mark.parametrize("looks", [1, 2])
def test_a_caller_that_goes_away_leaves_nothing(provisioner: Provisioner, control: Path, looks: int) -> None:
    with pytest.raises(Cancelled):
        provisioner.volumes.create(wanted("gone"), GivesUpAt(looks))
    assert os.listdir(control / "volumes") == []
    until(lambda: os.listdir(control / "staging") == [])  # the measurer, just started, writes its file there too
    assert provisioner.volumes.create(wanted("gone"), PATIENT).capacity_bytes == MIB


DIRECTORY = {"backend": "directory"}


@pytest.mark.parametrize(
    ("capability", "said"),
    [
        (Capability(AccessMode.SINGLE_NODE_WRITER, block=True), "block"),
        (Capability(AccessMode.MULTI_NODE_MULTI_WRITER), "one node"),
        (Capability(AccessMode.SINGLE_NODE_WRITER, fs_type="zfs"), "zfs"),
        (Capability(AccessMode.SINGLE_NODE_WRITER, mount_flags=("noatime", "discard")), "discard"),
    ],
)
def test_create_refuses_what_a_directory_cannot_be(provisioner: Provisioner, capability: Capability, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        provisioner.volumes.create(NewVolume("x", CapacityRange(MIB), (capability,), DIRECTORY), PATIENT)


def test_unknown_parameters_name_the_nearest_known_one(provisioner: Provisioner) -> None:
    with pytest.raises(InvalidRequest, match="did you mean 'mode'"):
        provisioner.volumes.create(wanted("typo", moed="0700"), PATIENT)


def test_capacity_that_is_offered_can_be_had(provisioner: Provisioner) -> None:
    offered = provisioner.volumes.capacity({}, ())
    asked = offered.maximum_volume_bytes - 64 * MIB  # others write to this disk meanwhile
    assert provisioner.volumes.create(wanted("all", asked), PATIENT).capacity_bytes == asked
    assert provisioner.volumes.capacity({}, ()).available_bytes <= 64 * MIB + GIB


def test_expand_grows_the_record_and_never_shrinks(provisioner: Provisioner, settings: Settings) -> None:
    volume = provisioner.volumes.create(wanted("grow"), PATIENT)
    grown = provisioner.volumes.expand(volume.volume_id, CapacityRange(4 * MIB, 8 * MIB), MULTI, PATIENT)
    assert grown.capacity_bytes == 4 * MIB
    assert provisioner.volumes.expand(volume.volume_id, CapacityRange(MIB), None, PATIENT) == grown
    with pytest.raises(CapacityOutOfRange, match="never shrink"):
        provisioner.volumes.expand(volume.volume_id, CapacityRange(MIB, 2 * MIB), None, PATIENT)
    with pytest.raises(OutOfCapacity):
        provisioner.volumes.expand(volume.volume_id, CapacityRange(2**60), None, PATIENT)
    provisioner.stop()
    with running(settings) as again:
        assert again.volumes.get(volume.volume_id) == grown


def test_delete_empties_the_pool_and_gives_the_room_back(provisioner: Provisioner, control: Path) -> None:
    volume = provisioner.volumes.create(wanted("brief", GIB), PATIENT)
    (control / "volumes" / "brief" / "data" / "file").write_text("x")
    provisioner.volumes.delete(volume.volume_id, PATIENT)
    provisioner.volumes.delete(volume.volume_id, PATIENT)
    with pytest.raises(VolumeNotFound):
        provisioner.volumes.get(volume.volume_id)
    assert os.listdir(control / "volumes") == []


@pytest.mark.parametrize("volume_id", ["", "fake-vol-id-1", "../../etc", "0123456789abcdef", "x" * 128, "\x01"])
def test_an_id_that_was_never_ours_is_deleted_already(provisioner: Provisioner, volume_id: str) -> None:
    provisioner.volumes.delete(volume_id, PATIENT)
    with pytest.raises(VolumeNotFound):
        provisioner.volumes.get(volume_id)


def test_delete_refuses_a_published_volume(provisioner: Provisioner, targets: Path) -> None:
    volume = provisioner.volumes.create(wanted("held"), PATIENT)
    provisioner.publishing.publish(at(volume.volume_id, targets / "pod"), PATIENT)
    with pytest.raises(VolumeInUse, match="pod"):
        provisioner.volumes.delete(volume.volume_id, PATIENT)
    provisioner.publishing.unpublish(volume.volume_id, str(targets / "pod"), PATIENT)
    provisioner.volumes.delete(volume.volume_id, PATIENT)


def test_pages_survive_deletes_between_them(provisioner: Provisioner) -> None:
    ids = sorted(provisioner.volumes.create(wanted(f"v{i}"), PATIENT).volume_id for i in range(7))
    first = provisioner.volumes.list(3, "")
    assert [volume.volume_id for volume in first.volumes] == ids[:3]
    provisioner.volumes.delete(ids[2], PATIENT)
    second = provisioner.volumes.list(3, first.next_token)
    third = provisioner.volumes.list(3, second.next_token)
    assert [volume.volume_id for volume in second.volumes + third.volumes] == ids[3:]
    assert third.next_token == ""
    with pytest.raises(BadToken):
        provisioner.volumes.list(0, "invalid-token")


def test_volumes_survive_a_restart(settings: Settings) -> None:
    with running(settings) as first:
        made = first.volumes.create(wanted("Kept", 7 * MIB), PATIENT)
        taken = first.volumes.capacity({}, ()).available_bytes
    with running(settings) as second:
        assert second.volumes.get(made.volume_id) == made
        assert abs(second.volumes.capacity({}, ()).available_bytes - taken) < GIB


def test_concurrent_creates_of_one_name_make_one_volume(provisioner: Provisioner, control: Path) -> None:
    def create(_: int) -> str:
        while True:
            try:
                return provisioner.volumes.create(wanted("race"), PATIENT).volume_id
            except OperationPending:
                continue

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(create, range(32)))) == 1
    assert os.listdir(control / "volumes") == ["race"]
