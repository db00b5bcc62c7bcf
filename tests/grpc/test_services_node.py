"""Node through the socket, above a fake domain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from csi.pb import csi_pb2
from csi.wire.topology import topology_of
from provisioner.model import (
    AccessMode,
    Capability,
    CapacityRange,
    Publication,
    StorageProblem,
    StorageStatus,
    Usage,
    Volume,
)
from tests.support.fakes import NODE_ID, POOL_ID, ServedFakes, refusal, served_fakes

if TYPE_CHECKING:
    from collections.abc import Iterator

Code = grpc.StatusCode
ID = f"{POOL_ID}.v"
MOUNT = csi_pb2.VolumeCapability(
    mount=csi_pb2.VolumeCapability.MountVolume(),
    access_mode=csi_pb2.VolumeCapability.AccessMode(mode=csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER),
)
REQUESTS: dict[str, Any] = {
    "NodeStageVolume": csi_pb2.NodeStageVolumeRequest(
        volume_id=ID, staging_target_path="/staging", volume_capability=MOUNT
    ),
    "NodePublishVolume": csi_pb2.NodePublishVolumeRequest(
        volume_id=ID, staging_target_path="/staging", target_path="/target", volume_capability=MOUNT
    ),
    "NodeGetVolumeStats": csi_pb2.NodeGetVolumeStatsRequest(volume_id=ID, volume_path="/target"),
    "NodeExpandVolume": csi_pb2.NodeExpandVolumeRequest(volume_id=ID, volume_path="/target"),
    "NodeGetVolumeHealth": csi_pb2.NodeGetVolumeHealthRequest(volume_id=ID, volume_publish_path="/target"),
    "NodeUnpublishVolume": csi_pb2.NodeUnpublishVolumeRequest(volume_id=ID, target_path="/target"),
    "NodeUnstageVolume": csi_pb2.NodeUnstageVolumeRequest(volume_id=ID, staging_target_path="/staging"),
}
OPTIONAL = {
    ("NodeGetVolumeHealth", "volume_publish_path"),
    ("NodePublishVolume", "staging_target_path"),  # has a code of its own
}


@pytest.fixture
def served() -> Iterator[ServedFakes]:
    with served_fakes() as found:
        found.volumes.volumes[ID] = Volume(ID, "v", 400)
        yield found


def call(served: ServedFakes, name: str, request: Any = None) -> Any:
    return getattr(served.node, name)(REQUESTS[name] if request is None else request)


def changed(name: str, **fields: Any) -> Any:
    """Give the request with some fields changed; None takes one away."""
    request = type(REQUESTS[name])()
    request.CopyFrom(REQUESTS[name])
    for field, value in fields.items():
        if value is None:
            request.ClearField(field)
        else:
            setattr(request, field, value)
    return request


def test_the_node_offers_what_it_has(served: ServedFakes) -> None:
    rpc = csi_pb2.NodeServiceCapability.RPC
    found = served.node.NodeGetCapabilities(csi_pb2.NodeGetCapabilitiesRequest())
    assert {rpc.Type.Name(capability.rpc.type) for capability in found.capabilities} == {
        "STAGE_UNSTAGE_VOLUME",
        "GET_VOLUME_STATS",
        "EXPAND_VOLUME",
        "SINGLE_NODE_MULTI_WRITER",
        "GET_VOLUME_HEALTH",
        "GET_STORAGE_HEALTH",
    }


def test_the_node_says_who_and_where_it_is(served: ServedFakes) -> None:
    found = served.node.NodeGetInfo(csi_pb2.NodeGetInfoRequest())
    assert found == csi_pb2.NodeGetInfoResponse(node_id=NODE_ID, accessible_topology=topology_of(NODE_ID))


def test_a_volume_is_shown_and_taken_away(served: ServedFakes) -> None:
    for name in REQUESTS:
        call(served, name)
        if name == "NodePublishVolume":
            capability = Capability(AccessMode.SINGLE_NODE_WRITER)
            assert served.publishing.staged == {"/staging": (ID, capability)}
            assert served.publishing.published == {
                "/target": Publication(ID, "/target", "/staging", capability, readonly=False)
            }
    assert not served.publishing.staged
    assert not served.publishing.published


def test_a_read_only_wish_reaches_the_domain(served: ServedFakes) -> None:
    call(served, "NodePublishVolume", changed("NodePublishVolume", readonly=True))
    assert served.publishing.published["/target"].readonly


@pytest.mark.parametrize(
    ("name", "field"),
    [
        (name, field.name)
        for name, request in REQUESTS.items()
        for field, _value in request.ListFields()
        if (name, field.name) not in OPTIONAL
    ],
)
def test_a_missing_field_is_named_and_the_same_with_it_works(served: ServedFakes, name: str, field: str) -> None:
    call(served, "NodeStageVolume")
    call(served, "NodePublishVolume")
    caught = refusal(getattr(served.node, name), changed(name, **{field: None}))
    assert caught.code is Code.INVALID_ARGUMENT
    assert caught.message.startswith(f"{field}: wanted ")
    call(served, name)


def test_publishing_before_staging_is_a_precondition(served: ServedFakes) -> None:
    request = changed("NodePublishVolume", staging_target_path=None)
    assert refusal(served.node.NodePublishVolume, request).code is Code.FAILED_PRECONDITION


@pytest.mark.parametrize("name", ["NodeStageVolume", "NodePublishVolume", "NodeGetVolumeStats", "NodeExpandVolume"])
def test_unknown_volumes_are_not_found(served: ServedFakes, name: str) -> None:
    served.volumes.volumes.clear()
    assert refusal(getattr(served.node, name), REQUESTS[name]).code is Code.NOT_FOUND


@pytest.mark.parametrize("name", ["NodeGetVolumeStats", "NodeExpandVolume"])
def test_a_relative_path_is_looked_for_like_any_other(served: ServedFakes, name: str) -> None:
    """Judges send `some/path` and want NOT_FOUND."""
    request = changed(name, volume_path="some/path")
    assert refusal(getattr(served.node, name), request).code is Code.NOT_FOUND


@pytest.mark.parametrize("inodes", [None, Usage(30, 10, 20)])
def test_figures_are_told(served: ServedFakes, inodes: Usage | None) -> None:
    served.publishing.inodes = inodes
    call(served, "NodePublishVolume")
    usage = served.node.NodeGetVolumeStats(REQUESTS["NodeGetVolumeStats"]).usage
    unit = csi_pb2.VolumeUsage
    expected = [unit(total=400, used=100, available=300, unit=unit.BYTES)]
    if inodes:
        expected.append(unit(total=30, used=10, available=20, unit=unit.INODES))
    assert list(usage) == expected


def test_the_node_has_grown_when_the_volume_has(served: ServedFakes) -> None:
    call(served, "NodePublishVolume")
    request = csi_pb2.NodeExpandVolumeRequest(
        volume_id=ID, volume_path="/target", capacity_range=csi_pb2.CapacityRange(required_bytes=400)
    )
    assert served.node.NodeExpandVolume(request).capacity_bytes == 400
    assert served.publishing.asked == [CapacityRange(400, 0)]


def test_health_needs_no_path(served: ServedFakes) -> None:
    """The volume may not have been published, just because of what is wrong with it."""
    answer = served.node.NodeGetVolumeHealth(csi_pb2.NodeGetVolumeHealthRequest(volume_id=ID))
    assert answer.volume_health == csi_pb2.VolumeHealth(volume_id=ID)
    assert served.publishing.asked == [""]


def test_pools_tell_of_their_health(served: ServedFakes) -> None:
    request = csi_pb2.NodeGetStorageHealthRequest()
    assert not served.node.NodeGetStorageHealth(request).backend_health
    served.volumes.storage_problems.append(StorageProblem(StorageStatus.UNREACHABLE, "PoolUnavailable", "gone"))
    found = served.node.NodeGetStorageHealth(request).backend_health
    assert [(f.status, f.reason, f.message) for f in found] == [
        (csi_pb2.STORAGE_UNREACHABLE, "PoolUnavailable", "gone")
    ]
