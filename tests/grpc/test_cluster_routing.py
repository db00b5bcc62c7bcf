"""A controller in front of real nodes, over real TLS: calls go where the volume is, or shall be."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest

from csi.cluster.api import ApiError
from csi.cluster.gone import NODE_KEY, ON_GONE_KEY, UID_KEY
from csi.pb import csi_pb2
from csi.wire.topology import KEY
from tests.support.clustered import Cluster, clustered, eventually
from tests.support.fakes import refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.clustered import ClusterNode

Code = grpc.StatusCode
MIB = 2**20
MOUNT = csi_pb2.VolumeCapability(
    mount=csi_pb2.VolumeCapability.MountVolume(),
    access_mode=csi_pb2.VolumeCapability.AccessMode(mode=csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER),
)


def creation(name: str, *nodes: str, size: int = MIB, **parameters: str) -> csi_pb2.CreateVolumeRequest:
    """Ask for a volume at one of some nodes, the first rather than the others; at any where none is named."""
    places = [csi_pb2.Topology(segments={KEY: node}) for node in nodes]
    return csi_pb2.CreateVolumeRequest(
        name=name,
        capacity_range=csi_pb2.CapacityRange(required_bytes=size),
        volume_capabilities=[MOUNT],
        parameters=parameters,
        accessibility_requirements=csi_pb2.TopologyRequirement(requisite=places, preferred=places) if places else None,
    )


def node_of(volume: csi_pb2.Volume) -> str:
    (place,) = volume.accessible_topology
    return place.segments[KEY]


def by_id(volume_id: str) -> csi_pb2.ControllerGetVolumeRequest:
    return csi_pb2.ControllerGetVolumeRequest(volume_id=volume_id)


def every_volume(cluster: Cluster, page: int) -> list[csi_pb2.Volume]:
    found, token = [], ""
    while True:
        reply = cluster.controller.ListVolumes(csi_pb2.ListVolumesRequest(max_entries=page, starting_token=token))
        assert len(reply.entries) <= page
        found += [entry.volume for entry in reply.entries]
        token = reply.next_token
        if not token:
            return found


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    """Three nodes; only c has the pool 'fast'."""
    with clustered() as cluster:
        cluster.add("a", "default")
        cluster.add("b", "default")
        cluster.add("c", "default", "fast")
        cluster.control()
        yield cluster


@pytest.fixture
def own() -> Iterator[Cluster]:
    with clustered() as cluster:
        yield cluster


def test_a_volume_lives_where_it_was_wanted(shared: Cluster) -> None:
    made = shared.controller.CreateVolume(creation("pvc-life", "b")).volume
    assert (node_of(made), made.volume_id) == ("b", f"{shared.nodes['b'].pool_id()}.pvc-life")
    assert dict(made.volume_context) == {NODE_KEY: "b", UID_KEY: "uid-of-b", ON_GONE_KEY: "keep"}
    assert shared.controller.CreateVolume(creation("pvc-life", "b")).volume == made
    looked_up = shared.controller.ControllerGetVolume(by_id(made.volume_id)).volume
    assert (looked_up.volume_id, looked_up.capacity_bytes, node_of(looked_up)) == (made.volume_id, MIB, "b")
    grown = shared.controller.ControllerExpandVolume(
        csi_pb2.ControllerExpandVolumeRequest(
            volume_id=made.volume_id, capacity_range=csi_pb2.CapacityRange(required_bytes=2 * MIB)
        )
    )
    assert (grown.capacity_bytes, grown.node_expansion_required) == (2 * MIB, False)
    asked = csi_pb2.ValidateVolumeCapabilitiesRequest(volume_id=made.volume_id, volume_capabilities=[MOUNT])
    assert shared.controller.ValidateVolumeCapabilities(asked).HasField("confirmed")
    health = shared.controller.ControllerGetVolumeHealth(
        csi_pb2.ControllerGetVolumeHealthRequest(volume_id=made.volume_id)
    )
    assert health.volume_health.volume_id == made.volume_id
    for _ in range(2):
        shared.controller.DeleteVolume(csi_pb2.DeleteVolumeRequest(volume_id=made.volume_id))
    assert refusal(shared.controller.ControllerGetVolume, by_id(made.volume_id)).code is Code.NOT_FOUND


def test_a_class_says_what_becomes_of_volumes_without_node(shared: Cluster) -> None:
    made = shared.controller.CreateVolume(creation("pvc-gone", "a", onNodeGone="delete")).volume
    assert made.volume_context[ON_GONE_KEY] == "delete"
    assert shared.controller.CreateVolume(creation("pvc-gone", "a", onNodeGone="delete")).volume == made


def test_a_node_s_own_refusal_is_passed_on(shared: Cluster) -> None:
    shared.controller.CreateVolume(creation("pvc-two-sizes", "a"))
    caught = refusal(shared.controller.CreateVolume, creation("pvc-two-sizes", "a", size=4 * MIB))
    assert caught.code is Code.ALREADY_EXISTS
    assert "pvc-two-sizes" in caught.message


@pytest.mark.parametrize(
    ("request_", "code", "said"),
    [
        (creation("", "a"), Code.INVALID_ARGUMENT, "name"),
        (creation("x", "a", colour="red"), Code.INVALID_ARGUMENT, "colour"),
        (creation("x", "a", mode="rwx"), Code.INVALID_ARGUMENT, "mode"),
        (creation("x", "a", pool="fast"), Code.RESOURCE_EXHAUSTED, "node a has no pool 'fast'"),
        (creation("x", "a", backend="subvolume"), Code.RESOURCE_EXHAUSTED, "cannot give backend 'subvolume'"),
        (creation("x", "a", "b", pool="none"), Code.RESOURCE_EXHAUSTED, "node b has no pool 'none'"),
        (creation("x", "a", size=2**60), Code.RESOURCE_EXHAUSTED, "can promise"),
        (creation("x", "a", "b", "c", size=2**60), Code.RESOURCE_EXHAUSTED, "node c can promise"),
        (creation("x", "gone"), Code.RESOURCE_EXHAUSTED, "not in the cluster any more"),
    ],
)
def test_what_no_node_can_do(shared: Cluster, request_: csi_pb2.CreateVolumeRequest, code: Code, said: str) -> None:
    caught = refusal(shared.controller.CreateVolume, request_)
    assert caught.code is code
    assert said in caught.message


def test_a_node_without_agent_yet_is_waited_for(shared: Cluster) -> None:
    shared.api.put("/api/v1/nodes/new", {"metadata": {"name": "new"}})
    caught = refusal(shared.controller.CreateVolume, creation("x", "new"))
    assert caught.code is Code.UNAVAILABLE
    assert "no agent of this driver is known on node new yet" in caught.message


def test_the_first_node_that_is_wanted_and_will_do_is_taken(shared: Cluster) -> None:
    assert node_of(shared.controller.CreateVolume(creation("pvc-w1", "b", "a")).volume) == "b"
    assert node_of(shared.controller.CreateVolume(creation("pvc-w2", "b", "a", "c", pool="fast")).volume) == "c"
    assert node_of(shared.controller.CreateVolume(creation("pvc-w3", "gone", "c")).volume) == "c"


def test_a_retry_finds_the_first_try_wherever_it_was_made(shared: Cluster) -> None:
    made = shared.controller.CreateVolume(creation("pvc-lost", "c")).volume
    assert shared.controller.CreateVolume(creation("pvc-lost", "a", "b", "c")).volume == made
    assert shared.controller.CreateVolume(creation("pvc-lost")).volume == made


def test_without_a_place_volumes_spread(shared: Cluster) -> None:
    made = [shared.controller.CreateVolume(creation(f"pvc-any-{i}")).volume for i in range(12)]
    assert len({node_of(volume) for volume in made}) > 1
    assert [shared.controller.CreateVolume(creation(f"pvc-any-{i}")).volume for i in range(12)] == made


def test_places_of_others_are_no_places_of_ours(shared: Cluster) -> None:
    request = creation("pvc-zone")
    request.accessibility_requirements.requisite.add().segments["topology.kubernetes.io/zone"] = "z"
    assert refusal(shared.controller.CreateVolume, request).code is Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("page", [1, 3, 1000])
def test_a_list_is_whole_whatever_the_pages(shared: Cluster, page: int) -> None:
    for i, node in enumerate("abcabc"):
        shared.controller.CreateVolume(creation(f"pvc-listed-{i}", node))
    shared.controller.CreateVolume(creation("pvc-listed-fast", "c", pool="fast"))
    own = {
        volume.volume_id: name
        for name, node in shared.nodes.items()
        for volume in node.provisioner.volumes.list(0, "").volumes
    }
    found = every_volume(shared, page)
    assert {volume.volume_id: node_of(volume) for volume in found} == own
    assert [volume.volume_id for volume in found] == sorted(own)


def test_a_foreign_token_is_refused(shared: Cluster) -> None:
    request = csi_pb2.ListVolumesRequest(starting_token="invalid-token")  # noqa: S106 - no secret
    assert refusal(shared.controller.ListVolumes, request).code is Code.ABORTED
    assert not shared.controller.ControllerListVolumeHealth(csi_pb2.ControllerListVolumeHealthRequest()).entries


@pytest.mark.parametrize("volume_id", ["fake-vol-id-1", "../../etc", "0123456789abcdef.."])
def test_an_id_that_was_never_ours_is_nothing(shared: Cluster, volume_id: str) -> None:
    shared.controller.DeleteVolume(csi_pb2.DeleteVolumeRequest(volume_id=volume_id))
    assert refusal(shared.controller.ControllerGetVolume, by_id(volume_id)).code is Code.NOT_FOUND


def test_a_pool_that_nobody_serves_may_come_back(shared: Cluster) -> None:
    lost = f"{'0' * 16}.pvc-lost"
    assert refusal(shared.controller.ControllerGetVolume, by_id(lost)).code is Code.UNAVAILABLE
    caught = refusal(shared.controller.DeleteVolume, csi_pb2.DeleteVolumeRequest(volume_id=lost))
    assert caught.code is Code.UNAVAILABLE
    assert "no PersistentVolume tells where it was" in caught.message


def room(cluster: Cluster, node: str = "", **parameters: str) -> int:
    place = csi_pb2.Topology(segments={KEY: node}) if node else None
    request = csi_pb2.GetCapacityRequest(accessible_topology=place, parameters=parameters)
    return cluster.controller.GetCapacity(request).available_capacity


def test_capacity_is_told_without_asking_a_node(own: Cluster) -> None:
    node = own.add("a", "default")
    own.add("b", "default", "fast")
    own.control()
    before = room(own, "a")
    assert before > 0
    assert room(own) == before + room(own, "b")
    own.controller.CreateVolume(creation("pvc-1", "a", size=before // 2))
    assert room(own, "a") < before * 2 // 3, "it counts before the Lease is written"
    for parameters in ({"pool": "fast"}, {"pool": "none"}, {"colour": "red"}, {"backend": "subvolume"}):
        assert room(own, "a", **parameters) == 0
    assert room(own, "nowhere") == 0
    node.agent.server.stop(None).wait()
    assert room(own, "a") > 0


def test_a_node_that_does_not_answer(own: Cluster) -> None:
    node = own.add("a", "default")
    own.add("b", "default")
    own.control(node_down_reschedule_seconds=2)
    made = own.controller.CreateVolume(creation("pvc-1", "a")).volume
    node.stop()
    for method, request in (
        (own.controller.ControllerGetVolume, by_id(made.volume_id)),
        (own.controller.DeleteVolume, csi_pb2.DeleteVolumeRequest(volume_id=made.volume_id)),
        (own.controller.ListVolumes, csi_pb2.ListVolumesRequest()),
        (own.controller.CreateVolume, creation("pvc-2", "a")),
    ):
        assert refusal(method, request).code is Code.UNAVAILABLE
    assert node_of(own.controller.CreateVolume(creation("pvc-3", "a", "b")).volume) == "b"
    eventually(lambda: refusal(own.controller.CreateVolume, creation("pvc-2", "a")).code is Code.RESOURCE_EXHAUSTED)
    node.start()
    eventually(lambda: node.agent.renewing.written_at)  # else the next line might put the old Lease over the new one
    own._own(node)
    eventually(lambda: own.is_trusted_by(node))
    eventually(lambda: own.controlling.directory.node("a").address.endswith(str(node.agent.port)))  # type: ignore[union-attr] # it is known
    assert own.controller.CreateVolume(creation("pvc-1", "a")).volume == made
    assert room(own, "a") > 0


def test_a_node_whose_disk_is_away_is_given_up_for_new_volumes_alone(own: Cluster) -> None:
    node = own.add("a", "default")
    own.control()
    made = own.controller.CreateVolume(creation("pvc-1", "a")).volume
    away = (node.folder / "default").rename(node.folder / "away")
    eventually(lambda: refusal(own.controller.CreateVolume, creation("pvc-2", "a")).code is Code.RESOURCE_EXHAUSTED)
    assert refusal(own.controller.ControllerGetVolume, by_id(made.volume_id)).code is Code.UNAVAILABLE
    away.rename(node.folder / "default")
    eventually(lambda: room(own, "a") > 0)
    assert own.controller.CreateVolume(creation("pvc-1", "a")).volume.volume_id == made.volume_id


def test_a_node_object_that_is_gone_frees_its_claims_at_once(own: Cluster) -> None:
    node = own.add("a", "default")
    own.control()
    node.agent.server.stop(None).wait()
    own.api.delete("/api/v1/nodes/a")
    assert refusal(own.controller.CreateVolume, creation("pvc-1", "a")).code is Code.RESOURCE_EXHAUSTED


def test_a_burst_does_not_herd_onto_one_node(own: Cluster) -> None:
    for name in "abcd":
        own.add(name, "default")
    own.control()
    size = max(room(own, name) for name in "abcd") * 2 // 3
    with ThreadPoolExecutor(4) as callers:
        requests = [creation(f"pvc-{i}", *"abcd", size=size) for i in range(4)]
        made = list(callers.map(own.controller.CreateVolume, requests))
    assert sorted(node_of(reply.volume) for reply in made) == list("abcd")


def claim_also(own: Cluster, twin: ClusterNode, pool_id: str) -> None:
    """Let a node's Lease say that its pool is this one."""
    twin.agent.renewing.stop()
    claimed = own.api.object(twin.lease_path)
    key = "local-path.csi.dev/announcement"
    claimed["metadata"]["annotations"][key] = claimed["metadata"]["annotations"][key].replace(twin.pool_id(), pool_id)
    own.api.put(twin.lease_path, claimed)


def test_a_disk_that_was_copied_is_refused_where_it_came_last(own: Cluster) -> None:
    first = own.add("a", "default")
    own.control()
    made = own.controller.CreateVolume(creation("pvc-1", "a")).volume
    lease = own.api.object(first.lease_path)
    claim_also(own, own.add("b", "default"), first.pool_id())
    eventually(lambda: own.controlling.directory.owns(own.controlling.directory.nodes()[0], first.pool_id()))
    eventually(lambda: [node.pools[0].id for node in own.controlling.directory.nodes()] == [first.pool_id()] * 2)
    assert refusal(own.controller.CreateVolume, creation("pvc-2", "b")).code is Code.RESOURCE_EXHAUSTED
    assert node_of(own.controller.ControllerGetVolume(by_id(made.volume_id)).volume) == "a"
    eventually(lambda: own.api.objects("/api/v1/namespaces/default/events"))
    (event,) = own.api.objects("/api/v1/namespaces/default/events")
    assert (event["reason"], event["involvedObject"]["name"]) == ("PoolClaimedTwice", "b")
    assert lease["metadata"]["name"] == "node-a"


def test_a_copied_disk_gets_no_calls_while_the_disk_that_was_copied_is_late(own: Cluster) -> None:
    node, twin = own.add("a", "default"), own.add("b", "default")
    own.control()
    made = own.controller.CreateVolume(creation("pvc-1", "a")).volume
    pool_id = node.pool_id()
    claim_also(own, twin, pool_id)
    node.stop()
    away = (node.folder / "default").rename(node.folder / "away")
    late = node.folder / "default"
    late.mkdir()
    (late / "not mounted").touch()
    node.start()
    eventually(lambda: own.controlling.directory.unfit() == "a", "the Lease of the new agent")
    for method, request in (
        (own.controller.DeleteVolume, csi_pb2.DeleteVolumeRequest(volume_id=made.volume_id)),
        (own.controller.ControllerGetVolume, by_id(made.volume_id)),
    ):
        caught = refusal(method, request)
        assert (caught.code, "was on node a" in caught.message) == (Code.UNAVAILABLE, True), caught
    assert refusal(own.controller.CreateVolume, creation("pvc-2", "b")).code is Code.RESOURCE_EXHAUSTED
    late.rename(node.folder / "empty")
    away.rename(late)
    eventually(lambda: own.controlling.directory.owns(own.controlling.directory.nodes()[0], pool_id), "the disk")
    eventually(node.agent.trusted)
    assert node_of(own.controller.ControllerGetVolume(by_id(made.volume_id)).volume) == "a"


def test_a_controller_is_not_ready_before_it_knows_the_cluster(own: Cluster) -> None:
    own.add("a", "default")
    own.control()
    assert own.identity.Probe(csi_pb2.ProbeRequest()).ready.value
    assert own.controlling.is_leading()
    own.api.fail(ApiError(0, "away"))
    assert own.identity.Probe(csi_pb2.ProbeRequest()).ready.value
    figures = {family.name: family.samples[0].value for family in own.controlling.figures()}
    assert (figures["csi_local_path_nodes"], figures["csi_local_path_nodes_alive"]) == (1, 1)
    assert (figures["csi_local_path_leading"], figures["csi_local_path_nodes_silent"]) == (1, 0)


def test_what_a_pool_cannot_hold_may_be_held_elsewhere(shared: Cluster) -> None:
    request = creation("pvc-xfs", "a", fsType="xfs", backend="directory")
    caught = refusal(shared.controller.CreateVolume, request)
    assert caught.code is Code.RESOURCE_EXHAUSTED
    assert "node a: pool 'default' has no means" in caught.message
