"""Controller through the socket, above a fake domain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import Int64Value

from csi.pb import csi_pb2
from csi.wire.topology import KEY, topology_of
from provisioner.errors import CapacityOutOfRange
from provisioner.model import (
    AccessMode,
    Capability,
    CapacityRange,
    HealthProblem,
    HealthStatus,
    NewVolume,
    VolumeHealth,
)
from tests.support.fakes import NODE_ID, POOL_ID, ServedFakes, refusal, served_fakes

if TYPE_CHECKING:
    from collections.abc import Iterator

Code = grpc.StatusCode
HERE = topology_of(NODE_ID)
THERE = topology_of("another")
MOUNT = csi_pb2.VolumeCapability(
    mount=csi_pb2.VolumeCapability.MountVolume(fs_type="ext4", mount_flags=["noatime"]),
    access_mode=csi_pb2.VolumeCapability.AccessMode(mode=csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER),
)


@pytest.fixture
def served() -> Iterator[ServedFakes]:
    with served_fakes() as found:
        yield found


def create_request(name: str = "v", **fields: Any) -> csi_pb2.CreateVolumeRequest:
    return csi_pb2.CreateVolumeRequest(name=name, volume_capabilities=[MOUNT], **fields)


def create(served: ServedFakes, name: str = "v", **fields: Any) -> csi_pb2.Volume:
    return served.controller.CreateVolume(create_request(name, **fields)).volume


def test_the_controller_offers_what_it_has(served: ServedFakes) -> None:
    rpc = csi_pb2.ControllerServiceCapability.RPC
    found = served.controller.ControllerGetCapabilities(csi_pb2.ControllerGetCapabilitiesRequest())
    assert {rpc.Type.Name(capability.rpc.type) for capability in found.capabilities} == {
        "CREATE_DELETE_VOLUME",
        "LIST_VOLUMES",
        "GET_CAPACITY",
        "GET_VOLUME",
        "EXPAND_VOLUME",
        "SINGLE_NODE_MULTI_WRITER",
        "GET_VOLUME_HEALTH",
        "LIST_VOLUME_HEALTH",
    }


def test_a_created_volume_is_told_in_full(served: ServedFakes) -> None:
    volume = create(served, capacity_range=csi_pb2.CapacityRange(required_bytes=7), parameters={"pool": "p"})
    assert volume == csi_pb2.Volume(
        volume_id=f"{POOL_ID}.v", capacity_bytes=7, accessible_topology=[csi_pb2.Topology(segments={KEY: NODE_ID})]
    )
    capability = Capability(AccessMode.SINGLE_NODE_WRITER, fs_type="ext4", mount_flags=("noatime",))
    assert served.volumes.asked == [(NewVolume("v", CapacityRange(7, 0), (capability,), {"pool": "p"}),)]


def test_a_created_volume_may_be_wanted_here(served: ServedFakes) -> None:
    requirement = csi_pb2.TopologyRequirement(requisite=[THERE, HERE], preferred=[THERE])
    assert create(served, accessibility_requirements=requirement).accessible_topology == [HERE]


def test_a_volume_wanted_elsewhere_is_not_created(served: ServedFakes) -> None:
    """This code, and no other, lets external-provisioner try another node."""
    elsewhere = csi_pb2.TopologyRequirement(requisite=[THERE])
    caught = refusal(served.controller.CreateVolume, create_request(accessibility_requirements=elsewhere))
    assert caught.code is Code.RESOURCE_EXHAUSTED
    assert f"{KEY}=another" in caught.message
    assert not served.volumes.asked


@pytest.mark.parametrize(
    "source",
    [
        csi_pb2.VolumeContentSource(snapshot=csi_pb2.VolumeContentSource.SnapshotSource(snapshot_id="s")),
        csi_pb2.VolumeContentSource(volume=csi_pb2.VolumeContentSource.VolumeSource(volume_id="v")),
    ],
)
def test_a_source_is_refused_and_the_same_without_it_works(
    served: ServedFakes, source: csi_pb2.VolumeContentSource
) -> None:
    caught = refusal(served.controller.CreateVolume, create_request(volume_content_source=source))
    assert caught.code is Code.INVALID_ARGUMENT
    assert "no snapshots and clones yet" in caught.message
    assert create(served).volume_id


def test_delete_passes_ids_on_that_were_never_ours(served: ServedFakes) -> None:
    """That they are gone is for the domain to say; OK is the spec's answer."""
    for volume_id in ("fake-vol-id-0123456789", "../../etc", "\0", "ü"):
        served.controller.DeleteVolume(csi_pb2.DeleteVolumeRequest(volume_id=volume_id))
    assert len(served.volumes.asked) == 4


def test_a_volume_can_be_looked_up(served: ServedFakes) -> None:
    volume = create(served)
    found = served.controller.ControllerGetVolume(csi_pb2.ControllerGetVolumeRequest(volume_id=volume.volume_id))
    assert found.volume == volume
    assert found.HasField("status")


def test_volumes_are_listed_in_pages(served: ServedFakes) -> None:
    ids = sorted(create(served, name).volume_id for name in "abcde")
    first = served.controller.ListVolumes(csi_pb2.ListVolumesRequest(max_entries=3))
    rest = served.controller.ListVolumes(csi_pb2.ListVolumesRequest(starting_token=first.next_token))
    assert [entry.volume.volume_id for entry in [*first.entries, *rest.entries]] == ids
    assert len(first.entries) == 3
    assert not rest.next_token
    assert all(entry.volume.accessible_topology == [HERE] for entry in first.entries)


@pytest.mark.parametrize(
    ("fields", "code"),
    [({"starting_token": "invalid-token"}, Code.ABORTED), ({"max_entries": -1}, Code.INVALID_ARGUMENT)],
)
def test_bad_pages_are_refused(served: ServedFakes, fields: dict[str, Any], code: Code) -> None:
    health = served.controller.ControllerListVolumeHealth
    assert refusal(served.controller.ListVolumes, csi_pb2.ListVolumesRequest(**fields)).code is code
    assert refusal(health, csi_pb2.ControllerListVolumeHealthRequest(**fields)).code is code


def validate_request(volume_id: str, **fields: Any) -> csi_pb2.ValidateVolumeCapabilitiesRequest:
    return csi_pb2.ValidateVolumeCapabilitiesRequest(
        volume_id=volume_id,
        volume_capabilities=[MOUNT],
        volume_context={"storage.kubernetes.io/csiProvisionerIdentity": "x"},
        parameters={"pool": "p"},
        **fields,
    )


def test_what_is_confirmed_is_repeated(served: ServedFakes) -> None:
    request = validate_request(create(served).volume_id)
    answer = served.controller.ValidateVolumeCapabilities(request)
    assert not answer.message
    assert answer.confirmed.volume_capabilities == request.volume_capabilities
    assert answer.confirmed.volume_context == request.volume_context
    assert answer.confirmed.parameters == request.parameters


def test_what_is_not_confirmed_has_a_reason(served: ServedFakes) -> None:
    volume_id = create(served).volume_id
    served.volumes.refusal = "no block volumes"
    answer = served.controller.ValidateVolumeCapabilities(validate_request(volume_id))
    assert not answer.HasField("confirmed")
    assert answer.message == "no block volumes"
    served.volumes.refusal = ""
    answer = served.controller.ValidateVolumeCapabilities(validate_request(volume_id, mutable_parameters={"iops": "9"}))
    assert not answer.HasField("confirmed")
    assert answer.message.startswith("mutable_parameters: wanted none")


@pytest.mark.parametrize(
    ("missing", "code"),
    [
        ("volume_id", Code.INVALID_ARGUMENT),
        ("volume_capabilities", Code.INVALID_ARGUMENT),
        ("parameters", Code.NOT_FOUND),  # nothing that it needs, but no volume has this id
    ],
)
def test_bad_validations_are_refused(served: ServedFakes, missing: Any, code: Code) -> None:
    request = validate_request("unknown")
    request.ClearField(missing)
    assert refusal(served.controller.ValidateVolumeCapabilities, request).code is code


@pytest.mark.parametrize("place", [None, csi_pb2.Topology(), HERE])
def test_capacity_is_told_of_this_node(served: ServedFakes, place: csi_pb2.Topology | None) -> None:
    answer = served.controller.GetCapacity(csi_pb2.GetCapacityRequest(accessible_topology=place))
    assert answer.available_capacity == served.volumes.available.available_bytes
    assert answer.maximum_volume_size == Int64Value(value=served.volumes.available.maximum_volume_bytes)


def test_other_nodes_have_no_capacity_here(served: ServedFakes) -> None:
    """CSIStorageCapacity objects are made per topology segment; ours may answer for ours alone."""
    answer = served.controller.GetCapacity(csi_pb2.GetCapacityRequest(accessible_topology=THERE))
    assert answer.available_capacity == 0
    assert answer.maximum_volume_size == Int64Value(value=0)
    assert not served.volumes.asked


def test_capacity_depends_on_the_class(served: ServedFakes) -> None:
    served.controller.GetCapacity(csi_pb2.GetCapacityRequest(parameters={"pool": "p"}, volume_capabilities=[MOUNT]))
    capability = Capability(AccessMode.SINGLE_NODE_WRITER, fs_type="ext4", mount_flags=("noatime",))
    assert served.volumes.asked == [({"pool": "p"}, (capability,))]


def test_a_volume_grows(served: ServedFakes) -> None:
    volume = create(served, capacity_range=csi_pb2.CapacityRange(required_bytes=5))
    request = csi_pb2.ControllerExpandVolumeRequest(
        volume_id=volume.volume_id, capacity_range=csi_pb2.CapacityRange(required_bytes=9), volume_capability=MOUNT
    )
    answer = served.controller.ControllerExpandVolume(request)
    assert answer.capacity_bytes == 9
    assert not answer.node_expansion_required


@pytest.mark.parametrize("missing", ["volume_id", "capacity_range"])
def test_an_expansion_needs_a_volume_and_a_size(served: ServedFakes, missing: Any) -> None:
    request = csi_pb2.ControllerExpandVolumeRequest(
        volume_id=create(served).volume_id, capacity_range=csi_pb2.CapacityRange(required_bytes=2 << 30)
    )
    wrong = csi_pb2.ControllerExpandVolumeRequest()
    wrong.CopyFrom(request)
    wrong.ClearField(missing)
    caught = refusal(served.controller.ControllerExpandVolume, wrong)
    assert caught.code is Code.INVALID_ARGUMENT
    assert caught.message.startswith(f"{missing}: wanted ")
    assert served.controller.ControllerExpandVolume(request).capacity_bytes == 2 << 30


def test_sizes_that_cannot_be_are_the_domain_s_to_refuse(served: ServedFakes) -> None:
    served.volumes.failure = CapacityOutOfRange("limit_bytes 1 is below required_bytes 2")
    range_ = csi_pb2.CapacityRange(required_bytes=2, limit_bytes=1)
    caught = refusal(served.controller.CreateVolume, create_request(capacity_range=range_))
    assert caught.code is Code.OUT_OF_RANGE
    assert caught.message == "limit_bytes 1 is below required_bytes 2"


def test_health_of_one_and_of_all(served: ServedFakes) -> None:
    good, bad = create(served, "good").volume_id, create(served, "bad").volume_id
    problem = HealthProblem(HealthStatus.INACCESSIBLE, "RecordUnreadable", "volume.json is cut short")
    served.volumes.problems[bad] = VolumeHealth(bad, (problem,))
    one = served.controller.ControllerGetVolumeHealth(csi_pb2.ControllerGetVolumeHealthRequest(volume_id=good))
    assert one.volume_health == csi_pb2.VolumeHealth(volume_id=good)
    all_ = served.controller.ControllerListVolumeHealth(csi_pb2.ControllerListVolumeHealthRequest())
    entry = csi_pb2.VolumeHealth.VolumeHealthEntry(
        status=csi_pb2.INACCESSIBLE, reason="RecordUnreadable", message="volume.json is cut short"
    )
    assert list(all_.entries) == [csi_pb2.VolumeHealth(volume_id=bad, health_statuses=[entry])]
