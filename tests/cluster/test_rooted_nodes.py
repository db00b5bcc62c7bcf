"""A node that somebody else is root on: he has its agent's token and may announce a key, and answers what he likes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from csi.cluster.certificates import new_credentials, server_name_of
from csi.cluster.gone import NODE_KEY
from csi.pb import csi_pb2, csi_pb2_grpc
from csi.wire.topology import KEY
from tests.cluster.driver import CONTROLLERS, agent, controllers, home_of, renew, wait_ready
from tests.cluster.kube import Kube, Object
from tests.cluster.lab.site import nodes
from tests.cluster.lab.volumes import volumes_on
from tests.cluster.manifests import SELECTED_NODE
from tests.cluster.rooted import POOL, Rooted, announced, rooted
from tests.cluster.scene import Scene
from tests.cluster.test_claims import node_of
from tests.support.liar import MIB, dialled, volume
from tests.support.malformed import certificates

if TYPE_CHECKING:
    from collections.abc import Iterator

CLAIM_KEY = "csi.storage.k8s.io/pvc/name"
SIZE = 64 * MIB
LIES = ("victims", "other-name", "other-node", "nowhere", "small")


@pytest.fixture
def victim(scene: Scene) -> Object:
    """Give a volume of n1 that nobody used yet."""
    scene.claim("victim", node="n1")
    return scene.bound("victim")


@pytest.fixture
def evil(kube: Kube, victim: Object) -> Iterator[Rooted]:
    """Give the rooted node, n3, in a cluster that has a volume on another one."""
    assert victim
    wait_ready(kube)
    with rooted(kube, nodes()[2]) as found:
        yield found


def answers(victim: Object, evil: Rooted) -> dict[str, Any]:
    """Give what the node answers: to each claim the lie that its name tells, or the truth."""

    def create(request: csi_pb2.CreateVolumeRequest) -> csi_pb2.CreateVolumeResponse:
        right = f"{POOL}.{request.name}"
        told = {
            "victims": volume(victim["spec"]["csi"]["volumeHandle"], evil.node.name, SIZE),
            "other-name": volume(f"{POOL}.{request.name}x", evil.node.name, SIZE),
            "other-node": volume(right, "n1", SIZE),
            "nowhere": csi_pb2.Volume(volume_id=right, capacity_bytes=SIZE),
            "small": volume(right, evil.node.name, 1),
        }
        claimed = {NODE_KEY: "n1"}
        honest = volume(right, evil.node.name, SIZE, claimed)
        return csi_pb2.CreateVolumeResponse(volume=told.get(request.parameters[CLAIM_KEY], honest))

    return {"CreateVolume": create, "DeleteVolume": csi_pb2.DeleteVolumeResponse()}


def test_node_that_lies_binds_no_claim_to_what_is_not_its_own(
    scene: Scene, kube: Kube, victim: Object, evil: Rooted
) -> None:
    evil.liar.answers = answers(victim, evil)
    for lie in LIES:
        scene.claim(lie, node=evil.node.name)
    scene.claim("honest", node=evil.node.name)
    honest = scene.bound("honest")
    assert node_of(honest) == evil.node.name
    assert honest["spec"]["csi"]["volumeAttributes"][NODE_KEY] == evil.node.name, "where it is, a node does not say"

    def is_free(claim: Object) -> bool:
        return SELECTED_NODE not in claim["metadata"].get("annotations", {})

    for lie in LIES:
        found = kube.wait("PersistentVolumeClaim", lie, scene.namespace, is_free)
        assert "volumeName" not in found["spec"]
        assert any("cannot be believed" in event for event in scene.events(lie)), scene.events(lie)

    handles = [one["spec"]["csi"]["volumeHandle"] for one in (victim, honest)]
    entry = csi_pb2.ListVolumesResponse.Entry
    ids = [handles[0], f"{POOL}.", "../../etc", handles[1]]
    listed = csi_pb2.ListVolumesResponse(entries=[entry(volume=volume(each, "n1")) for each in ids])
    evil.liar.answers["ListVolumes"] = listed
    assert all_listed(kube, handles) == {handles[0]: "n1", handles[1]: evil.node.name}

    kube.delete("PersistentVolumeClaim", "honest", scene.namespace)
    kube.wait_gone("PersistentVolume", honest["metadata"]["name"])


def all_listed(kube: Kube, wanted: list[str]) -> dict[str, str]:
    """Ask a controller, at its own socket, for all volumes; gives the nodes of those that are wanted."""
    pod = controllers(kube)[0]
    place = f"kubelet/pods/{pod['metadata']['uid']}/volumes/kubernetes.io~empty-dir/socket"
    link = Path(f"/tmp/csi-{pod['metadata']['uid'][:8]}")  # noqa: S108 - a socket's path must be short
    link.symlink_to(home_of(pod).folder / place)
    try:
        with grpc.insecure_channel(f"unix://{link}/csi.sock") as channel:
            found = csi_pb2_grpc.ControllerStub(channel).ListVolumes(csi_pb2.ListVolumesRequest(), timeout=30)
    finally:
        link.unlink()
    ids = [each.volume.volume_id for each in found.entries]
    assert len(ids) == len(set(ids))
    places = {each.volume.volume_id: each.volume.accessible_topology[0].segments[KEY] for each in found.entries}
    assert set(places.values()) <= {node.name for node in nodes()}
    return {volume_id: places[volume_id] for volume_id in wanted}


def test_rooted_node_reaches_no_other_node_with_any_key(kube: Kube, victim: Object, evil: Rooted) -> None:
    """Its own key is announced and pinned, its Lease calls itself a controller's, and still it is a node's."""
    name, handle = victim["metadata"]["name"], victim["spec"]["csi"]["volumeHandle"]
    for node in nodes()[:2]:
        told = announced(kube, f"node-{node.name}")
        assert told.address.startswith(agent(kube, node)["status"]["podIP"])
        for ours in (evil.credentials, new_credentials(), None):
            with (
                dialled(told.address, told.certificate, server_name_of(told.certificate), ours) as stub,
                pytest.raises(grpc.RpcError) as caught,
            ):
                stub.DeleteVolume(csi_pb2.DeleteVolumeRequest(volume_id=handle), timeout=5)
            assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert name in volumes_on(nodes()[0])


def test_strange_certificate_of_one_node_does_not_blind_controllers(scene: Scene, kube: Kube, evil: Rooted) -> None:
    evil.announce(kube, certificates()["an extension twice"])
    renew(kube, CONTROLLERS)  # so that they read all Leases anew
    scene.claim("others", node="n2")
    scene.bound("others")
