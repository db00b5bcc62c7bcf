"""Who is not let in, and what a node that lies cannot do."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import grpc
import pytest
import structlog

from csi.cluster import announcement, leases
from csi.cluster.announcement import SCHEMA, Announcement
from csi.cluster.certificates import Credentials, new_credentials
from csi.cluster.gone import NODE_KEY, ON_GONE_KEY, UID_KEY
from csi.pb import csi_pb2, csi_pb2_grpc
from csi.wire.topology import KEY
from tests.grpc.test_cluster_routing import by_id, creation, room
from tests.support import liar
from tests.support.announced import facts
from tests.support.clustered import NAMESPACE, Cluster, clustered, eventually
from tests.support.fakes import refusal
from tests.support.liar import MIB, Liar, dialled, lying
from tests.support.relay import relay, replay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from provisioner.facts import PoolFacts

Code = grpc.StatusCode
OURS = "ffffffffffffffff"  # the pool of the node that lies
CALLS = 100  # at once, as csi-provisioner may make them


class World:
    """An honest node a with a volume, and the node that lies, which is called evil."""

    def __init__(self, cluster: Cluster, told: Liar, credentials: Credentials, port: int) -> None:
        self.cluster, self.liar, self.credentials, self.port = cluster, told, credentials, port
        self.announce(self.credentials)
        self.victim = cluster.controller.CreateVolume(creation("pvc-victim", "a")).volume

    def announce(self, credentials: Credentials, *pools: str) -> None:
        told = (facts(pool_id, f"p{i}" if i else "default") for i, pool_id in enumerate(pools or (OURS,)))
        self.announce_pools(credentials, *told)

    def announce_pools(self, credentials: Credentials, *told: PoolFacts, only_if_unused: bool = True) -> None:
        certificate = credentials.certificate.decode()
        said = announcement.encode(Announcement(SCHEMA, certificate, f"127.0.0.1:{self.port}", told, only_if_unused))
        path = leases.path_of(NAMESPACE, "node-evil")
        body = leases.body(NAMESPACE, "node-evil", {announcement.ANNOTATION: said}, leases.spec_of("x", 60))
        self.cluster.api.put(path, body)

        def known() -> bool:
            node = self.cluster.controlling.directory.node("evil")
            found = node and (node.certificate, node.pools, node.only_if_unused)
            return found == (certificate, told, only_if_unused)

        eventually(known)


@pytest.fixture
def world() -> Iterator[World]:
    told, credentials = Liar(), new_credentials()
    with clustered() as cluster:
        cluster.add("a", "default")
        cluster.control()
        trusted = cluster.nodes["a"].agent.trusted
        with lying(told, credentials, trusted, "127.0.0.1") as port:
            yield World(cluster, told, credentials, port)


def volume(
    volume_id: str, node: str = "evil", size: int = MIB, context: dict[str, str] | None = None
) -> csi_pb2.Volume:
    return liar.volume(volume_id, node, size, context)


def test_an_honest_answer_is_taken_and_nothing_is_added_to_it(world: World) -> None:
    claimed = {NODE_KEY: "a", UID_KEY: "uid-of-a", ON_GONE_KEY: "delete", "x": "y"}
    told = volume(f"{OURS}.pvc-1", context=claimed)
    told.content_source.snapshot.snapshot_id = "s"
    world.liar.answers["CreateVolume"] = csi_pb2.CreateVolumeResponse(volume=told)
    made = world.cluster.controller.CreateVolume(creation("pvc-1", "evil")).volume
    assert dict(made.volume_context) == {NODE_KEY: "evil", UID_KEY: "", ON_GONE_KEY: "keep"}
    assert not made.HasField("content_source")


@pytest.mark.parametrize("lie", ["victim", "other name", "topology", "everywhere", "too small", "too large", "nothing"])
def test_a_claim_is_never_bound_to_what_a_node_made_up(world: World, lie: str) -> None:
    right = f"{OURS}.pvc-1"
    lies = {
        "victim": volume(world.victim.volume_id),
        "other name": volume(f"{OURS}.pvc-2"),
        "topology": volume(right, node="a"),
        "everywhere": csi_pb2.Volume(volume_id=right, capacity_bytes=MIB),
        "too small": volume(right, size=1),
        "too large": volume(right, size=2 * MIB),
        "nothing": csi_pb2.Volume(),
    }
    world.liar.answers["CreateVolume"] = csi_pb2.CreateVolumeResponse(volume=lies[lie])
    request = creation("pvc-1", "evil")
    request.capacity_range.limit_bytes = MIB
    caught = refusal(world.cluster.controller.CreateVolume, request)
    assert caught.code is Code.RESOURCE_EXHAUSTED, "another node may do"
    assert "cannot be believed" in caught.message


def test_an_answer_about_another_volume_is_refused(world: World) -> None:
    told = csi_pb2.ControllerGetVolumeResponse(volume=volume(world.victim.volume_id))
    world.liar.answers["ControllerGetVolume"] = told
    caught = refusal(world.cluster.controller.ControllerGetVolume, by_id(f"{OURS}.pvc-1"))
    assert caught.code is Code.UNAVAILABLE
    told.volume.volume_id = f"{OURS}.pvc-1"
    del told.volume.accessible_topology[:]
    found = world.cluster.controller.ControllerGetVolume(by_id(f"{OURS}.pvc-1")).volume
    assert found.accessible_topology[0].segments[KEY] == "evil"


def test_an_expansion_that_did_not_happen_is_no_success(world: World) -> None:
    world.liar.answers["ControllerExpandVolume"] = csi_pb2.ControllerExpandVolumeResponse(capacity_bytes=1)
    request = csi_pb2.ControllerExpandVolumeRequest(
        volume_id=f"{OURS}.pvc-1", capacity_range=csi_pb2.CapacityRange(required_bytes=MIB)
    )
    assert refusal(world.cluster.controller.ControllerExpandVolume, request).code is Code.UNAVAILABLE


def test_a_list_holds_each_node_s_own_volumes_only(world: World) -> None:
    entry = csi_pb2.ListVolumesResponse.Entry
    ids = [world.victim.volume_id, f"{OURS}.b", f"{OURS}.a", f"{OURS}.b", "../../etc", f"{OURS}.c", ""]
    entries = [entry(volume=volume(volume_id, node="a")) for volume_id in ids]
    world.liar.answers["ListVolumes"] = csi_pb2.ListVolumesResponse(entries=entries)
    found = world.cluster.controller.ListVolumes(csi_pb2.ListVolumesRequest()).entries
    assert [(each.volume.volume_id, each.volume.accessible_topology[0].segments[KEY]) for each in found] == [
        (world.victim.volume_id, "a"),
        (f"{OURS}.b", "evil"),
        (f"{OURS}.c", "evil"),
    ]


@pytest.mark.parametrize("token", [f"after:{OURS}.", f"after:{OURS}.a", f"after:{OURS}.0"])
def test_a_list_without_an_end_is_cut(world: World, token: str) -> None:
    entry = csi_pb2.ListVolumesResponse.Entry(volume=volume(f"{OURS}.a"))
    world.liar.answers["ListVolumes"] = csi_pb2.ListVolumesResponse(entries=[entry], next_token=token)
    start = csi_pb2.ListVolumesRequest(starting_token=f"after:{OURS}.a")
    reply = world.cluster.controller.ListVolumes
    if token.endswith("."):
        assert not reply(start).next_token, "no token of ours is the end"
    else:
        assert refusal(reply, start).code is Code.UNAVAILABLE


def test_a_node_cannot_take_another_s_pool(world: World) -> None:
    stolen = world.cluster.nodes["a"].pool_id()
    world.announce(world.credentials, stolen, OURS)
    found = world.cluster.controller.ControllerGetVolume(by_id(world.victim.volume_id)).volume
    assert found.accessible_topology[0].segments[KEY] == "a"
    world.liar.answers["CreateVolume"] = csi_pb2.CreateVolumeResponse(volume=volume(f"{stolen}.pvc-1"))
    assert refusal(world.cluster.controller.CreateVolume, creation("pvc-1", "evil")).code is Code.RESOURCE_EXHAUSTED
    before = room(world.cluster, "a")
    assert room(world.cluster, "evil") == 0
    world.liar.answers["CreateVolume"] = csi_pb2.CreateVolumeResponse(volume=volume(f"{OURS}.pvc-1"))
    world.liar.room = f'{{"{stolen}": 1, "{OURS}": 1}}'
    world.cluster.controller.CreateVolume(creation("pvc-1", "evil", pool="p1"))
    assert room(world.cluster, "a") == before, "a node tells of its own room only"


@pytest.mark.parametrize("told", ["", "[]", '{"x": "y"}', f'{{"{OURS}": -5}}', f'{{"{OURS}": {10**30}}}', "{" * 1000])
def test_nonsense_about_room_harms_nobody(world: World, told: str) -> None:
    world.liar.room = told
    world.liar.answers["CreateVolume"] = csi_pb2.CreateVolumeResponse(volume=volume(f"{OURS}.pvc-1"))
    assert world.cluster.controller.CreateVolume(creation("pvc-1", "evil")).volume.volume_id == f"{OURS}.pvc-1"
    assert room(world.cluster, "evil") >= 0


def test_a_node_that_says_it_has_the_volume_and_then_refuses_keeps_nobody_from_it(world: World) -> None:
    world.liar.answers["ControllerGetVolume"] = csi_pb2.ControllerGetVolumeResponse()
    world.liar.answers["CreateVolume"] = csi_pb2.CreateVolumeResponse(volume=volume(f"{OURS}.another"))
    made = world.cluster.controller.CreateVolume(creation("pvc-1", "evil", "a")).volume
    assert made.volume_id == f"{world.cluster.nodes['a'].pool_id()}.pvc-1"
    again = world.cluster.controller.CreateVolume(creation("pvc-1", "evil", "a")).volume
    assert again == made


def test_all_the_room_there_can_be_is_not_too_much_to_be_told(world: World) -> None:
    told = facts(OURS, room=2**63 - 1)
    world.announce_pools(world.credentials, told)
    assert room(world.cluster) == 2**63 - 1


def test_a_node_that_keeps_calls_waiting_keeps_the_others_threads_free(world: World) -> None:
    world.liar.held.clear()
    with ThreadPoolExecutor(CALLS) as callers:
        hung = [callers.submit(refusal, world.cluster.controller.ControllerGetVolume, by_id(f"{OURS}.{i}"))
                for i in range(CALLS)]  # fmt: skip
        found = world.cluster.controller.ControllerGetVolume(by_id(world.victim.volume_id), timeout=10).volume
        assert found.volume_id == world.victim.volume_id
        world.announce(new_credentials())  # a new agent, it would seem
        caught = refusal(world.cluster.controller.ControllerGetVolume, by_id(f"{OURS}.late"))
        assert "calls waiting" in caught.message
        world.liar.held.set()
        codes = {one.result().code for one in hung}
    assert codes <= {Code.NOT_FOUND, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED}


def test_a_node_that_accepts_and_never_speaks_costs_the_next_caller_nothing(world: World) -> None:
    lookup = world.cluster.controller.ControllerGetVolume
    with socket.create_server(("127.0.0.1", 0)) as silent:
        world.port = silent.getsockname()[1]
        world.announce(new_credentials())
        assert refusal(lookup, by_id(f"{OURS}.a")).code is Code.UNAVAILABLE
        # A connection is given 3 s: who waited for another would miss this deadline.
        assert refusal(partial(lookup, timeout=2), by_id(f"{OURS}.a")).code is Code.UNAVAILABLE


def test_a_node_is_shown_no_token(world: World) -> None:
    secret = (("authorization", "Bearer secret"),)
    call = world.cluster.controller.ControllerGetVolume.future(by_id(f"{OURS}.a"), metadata=secret)
    assert isinstance(call.exception(), grpc.RpcError)
    world.cluster.controlling.sweep.sweep()
    assert len(world.liar.metadata) >= 2
    assert not any("authorization" in heard for heard in world.liar.metadata)


def test_a_node_that_changes_its_certificate_again_and_again_costs_little(world: World) -> None:
    before = threading.active_count()
    for i in range(50):
        world.announce(new_credentials())
        assert refusal(world.cluster.controller.ControllerGetVolume, by_id(f"{OURS}.{i}")).code is Code.UNAVAILABLE
    eventually(lambda: threading.active_count() - before < 25)
    world.announce(world.credentials)
    world.liar.answers["ControllerGetVolume"] = csi_pb2.ControllerGetVolumeResponse(volume=volume(f"{OURS}.x"))
    assert world.cluster.controller.ControllerGetVolume(by_id(f"{OURS}.x")).volume.volume_id == f"{OURS}.x"


def test_a_node_with_another_s_certificate_is_not_the_one(world: World) -> None:
    world.announce(new_credentials())
    assert refusal(world.cluster.controller.ControllerGetVolume, by_id(f"{OURS}.pvc-1")).code is Code.UNAVAILABLE


def dial(world: World, ours: Credentials | None) -> AbstractContextManager[csi_pb2_grpc.ControllerStub]:
    """Dial the honest node; its certificate and address are no secret."""
    node = world.cluster.controlling.directory.node("a")
    assert node is not None
    return dialled(node.address, node.certificate, node.server_name, ours)


@pytest.mark.parametrize("who", ["nobody", "somebody", "another node"])
def test_a_node_lets_in_no_one_but_controllers(world: World, who: str) -> None:
    keys = {"nobody": None, "somebody": new_credentials(), "another node": world.credentials}
    with dial(world, keys[who]) as stub:
        is_refused(world, stub)


def test_a_certificate_without_its_key_is_worth_nothing(world: World) -> None:
    own = world.cluster.nodes["a"].agent._credentials
    stolen = Credentials(new_credentials().private_key, own.certificate, "")
    try:
        with dial(world, stolen) as stub:
            is_refused(world, stub)
    except RuntimeError:
        return  # gRPC itself refuses a pair that does not match


def test_a_node_speaks_to_nobody_without_tls(world: World) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{world.cluster.nodes['a'].agent.port}") as channel:
        is_refused(world, csi_pb2_grpc.ControllerStub(channel))


def is_refused(world: World, stub: csi_pb2_grpc.ControllerStub) -> None:
    """See that a delete does not come through."""
    with pytest.raises(grpc.RpcError) as caught:
        stub.DeleteVolume(csi_pb2.DeleteVolumeRequest(volume_id=world.victim.volume_id), timeout=5)
    assert caught.value.code() in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)
    found = world.cluster.nodes["a"].provisioner.volumes.get(world.victim.volume_id)
    assert found.volume_id == world.victim.volume_id


def test_what_was_heard_on_the_way_is_worth_nothing_later(world: World) -> None:
    node = world.cluster.nodes["a"]
    target = ("127.0.0.1", node.agent.port)
    node.agent.renewing.stop()
    with relay(target) as middle:
        lease = world.cluster.api.object(node.lease_path)
        said = lease["metadata"]["annotations"]
        said[announcement.ANNOTATION] = said[announcement.ANNOTATION].replace(f":{target[1]}", f":{middle.port}")
        world.cluster.api.put(node.lease_path, lease)
        known = world.cluster.controlling.directory.node
        eventually(lambda: known("a").address.endswith(f":{middle.port}"))  # type: ignore[union-attr] # it is known
        world.cluster.controller.DeleteVolume(csi_pb2.DeleteVolumeRequest(volume_id=world.victim.volume_id))
        world.cluster.controller.CreateVolume(creation("pvc-victim", "a"))
        (heard,) = middle.heard
    assert len(heard) > 1000
    assert world.victim.volume_id.encode() not in heard
    replay(target, bytes(heard))
    assert node.provisioner.volumes.get(world.victim.volume_id).volume_id == world.victim.volume_id


def test_a_sweep_sends_a_node_nothing_but_its_own(world: World) -> None:
    asked: list[str] = []

    def delete(request: csi_pb2.DeleteVolumeRequest) -> csi_pb2.DeleteVolumeResponse:
        asked.append(request.volume_id)
        return csi_pb2.DeleteVolumeResponse()

    uid = "5d0cbb1c-3bd6-4b3e-9bb0-000000000001"
    victim = world.cluster.controller.CreateVolume(creation(f"pvc-{uid}", "a")).volume.volume_id
    entry = csi_pb2.ListVolumesResponse.Entry
    ids = [victim, f"{OURS}.pvc-{uid}", f"{OURS}.by-hand", "../../etc", ""]
    entries = [entry(volume=volume(volume_id)) for volume_id in ids]
    world.liar.answers["ListVolumes"] = csi_pb2.ListVolumesResponse(entries=entries, next_token="again")  # noqa: S106 - no secret
    world.liar.answers["DeleteVolume"] = delete
    world.cluster.controlling.sweep.sweep()
    assert asked == [f"{OURS}.pvc-{uid}"]
    found = world.cluster.nodes["a"].provisioner.volumes.get(victim)
    assert found.volume_id == victim, "a node decides itself, and this volume is young"


def test_a_node_of_a_release_that_deletes_without_the_condition_is_left_out_of_the_sweep(world: World) -> None:
    asked: list[str] = []
    world.liar.answers["DeleteVolume"] = lambda request: asked.append(request.volume_id)
    entry = csi_pb2.ListVolumesResponse.Entry(volume=volume(f"{OURS}.pvc-5d0cbb1c-3bd6-4b3e-9bb0-000000000001"))
    world.liar.answers["ListVolumes"] = csi_pb2.ListVolumesResponse(entries=[entry])
    world.announce_pools(world.credentials, facts(OURS), only_if_unused=False)
    with structlog.testing.capture_logs() as lines:
        for _ in range(2):
            world.cluster.controlling.sweep.sweep()
    assert (asked, world.cluster.controlling.sweep.found) == ([], 0)
    assert [line["node"] for line in lines if "until its agent is upgraded" in line["event"]] == ["evil"]


def test_a_lease_that_calls_itself_a_controller_s_opens_nothing(world: World) -> None:
    said = announcement.encode(Announcement(SCHEMA, world.credentials.certificate.decode()))
    for name in ("controller-2", "node-controller-0", "controller-00", "Controller-0"):
        body = leases.body(NAMESPACE, name, {announcement.ANNOTATION: said}, leases.spec_of("evil", 60))
        body["metadata"]["labels"] = {"role": "controller", "metadata.name": "controller-0"}
        world.cluster.api.put(leases.path_of(NAMESPACE, name), body)
    world.cluster.api.put(leases.path_of(NAMESPACE, "controller-1"), leases.body(NAMESPACE, "controller-1", {}, {}))
    assert world.credentials.certificate.decode() not in world.cluster.nodes["a"].agent.trusted()


def test_a_controller_that_gave_its_slot_back_is_let_in_no_more(world: World) -> None:
    ours = new_credentials()
    said = announcement.encode(Announcement(SCHEMA, ours.certificate.decode()))
    path = leases.path_of(NAMESPACE, "controller-1")
    agent = world.cluster.nodes["a"].agent
    held = leases.body(NAMESPACE, "controller-1", {announcement.ANNOTATION: said}, leases.spec_of("second", 60))
    world.cluster.api.put(path, held)
    eventually(lambda: len(agent.trusted()) == 2)
    with dial(world, ours) as stub:
        assert stub.ControllerGetVolume(by_id(world.victim.volume_id), timeout=5).volume.volume_id
    world.cluster.api.put(path, leases.body(NAMESPACE, "controller-1", {}, leases.spec_of("", 1)))
    eventually(lambda: len(agent.trusted()) == 1)
    with dial(world, ours) as stub, pytest.raises(grpc.RpcError) as caught:
        stub.ControllerGetVolume(by_id(world.victim.volume_id), timeout=5)
    assert caught.value.code() is Code.UNAVAILABLE
