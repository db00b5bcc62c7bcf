"""Nodes that are gone for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from csi.cluster.api import ApiError
from csi.cluster.capacity import Capacity, InFlight
from csi.cluster.creating import Creating
from csi.cluster.directory import Directory
from csi.cluster.gone import NODE_KEY, ON_GONE_KEY, UID_KEY, Gone, NodeObjects
from csi.cluster.grace import Grace
from csi.cluster.nodes import Nodes
from csi.cluster.objects import PersistentVolume
from csi.cluster.peers import Peers
from csi.cluster.routing import RoutingController
from csi.cluster.unseen import Unseen
from csi.manifests import persistent_volume
from csi.node_id import suited
from csi.pb import csi_pb2
from csi.wire.topology import KEY
from provisioner.errors import DeadlineExceeded, NodeUnavailable
from provisioner.facts import PoolFacts
from provisioner.survey import VolumeReport
from tests.support.announced import Clock, credentials_of, facts, node_lease
from tests.support.kubeapi import MemoryApi
from tests.support.told import Told

if TYPE_CHECKING:
    import grpc

POOL, OTHER = "00000000000000aa", "00000000000000bb"
NAME = "pvc-5d0cbb1c-3bd6-4b3e-9bb0-0a3b2c2f9d11"
ID = f"{POOL}.{NAME}"
DIGEST = suited("n" * 64)


def at(*places: str, key: str = KEY, operator: str = "In") -> dict[str, Any]:
    """Give a term of a PersistentVolume's nodeAffinity."""
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(places)}]}


class Hasty:
    """The context of a caller that does not wait for a node."""

    def time_remaining(self) -> float:
        return 0


class World:
    """An API with one volume of node a, which is gone; a new Node of that name has other disks."""

    def __init__(self, on_gone: str = "delete", name: str = NAME) -> None:
        self.api, self.clock, self.told, self.directory = MemoryApi(), Clock(), Told(), Directory()
        nodes = NodeObjects(lambda: self.api, self.clock)
        self.gone = Gone(lambda: self.api, self.directory, nodes, self.told, 3600, self.clock)
        self.directory.replaced([])
        self.put_volume(name, {NODE_KEY: "a", UID_KEY: "uid-of-a", ON_GONE_KEY: on_gone})

    def put_volume(
        self, name: str, attributes: dict[str, str], terms: list[Any] | None = None, **metadata: Any
    ) -> None:
        csi = {"driver": "local-path.csi.dev", "volumeHandle": ID, "volumeAttributes": attributes}
        spec = {"csi": csi, **({"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}} if terms else {})}
        body = {"metadata": {"name": name, **metadata}, "spec": spec}
        self.api.put(f"/api/v1/persistentvolumes/{name}", body)

    def put_node(self, uid: str) -> None:
        self.api.put("/api/v1/nodes/a", {"metadata": {"name": "a", "uid": uid}})
        self.announce(facts(OTHER))

    def announce(self, *pools: PoolFacts, said: str | None = None) -> None:
        self.directory.changed(node_lease("a", *pools, uid="another", said=said))

    def ask(self) -> str:
        return self.gone.node_to_ask(ID, POOL)

    def refusal(self) -> str:
        with pytest.raises(NodeUnavailable) as caught:
            self.ask()
        return str(caught.value)

    def routing(self) -> RoutingController:
        nodes, in_flight = Nodes(self.directory, Peers(credentials_of("controller")), 300), InFlight()
        creating = Creating(nodes, in_flight, NodeObjects(lambda: self.api), Unseen(300))
        return RoutingController(nodes, creating, Capacity(self.directory, in_flight), self.gone)

    def repeat(self, hours: int) -> None:
        """Let the delete be tried again and again, in vain."""
        for _ in range(hours * 12):
            self.refusal()
            self.clock.now += 300


@pytest.mark.parametrize("uid", ["", "another"])
@pytest.mark.parametrize("name", [NAME, "called-otherwise"])
def test_after_the_grace_a_volume_goes_with_its_node(uid: str, name: str) -> None:
    world = World(name=name)
    if uid:
        world.put_node(uid)
    assert "counts as deleted in 3600 s" in world.refusal()
    world.clock.now += 3599
    assert "counts as deleted in 1 s" in world.refusal()
    world.clock.now += 2
    assert world.ask() == ""
    ((told, message),) = world.told.volumes
    assert told == name
    assert message.startswith("NodeGone: deleted without its node: a (uid uid-of-a)")


def test_without_the_class_s_wish_it_never_does() -> None:
    world = World("keep")
    for _ in range(3):
        assert f"kubectl annotate pv {NAME} {ON_GONE_KEY}=delete" in world.refusal()
        world.clock.now += 10_000
    world.put_volume(
        NAME, {NODE_KEY: "a", UID_KEY: "uid-of-a", ON_GONE_KEY: "keep"}, annotations={ON_GONE_KEY: "delete"}
    )
    world.repeat(hours=1)
    assert world.ask() == ""


def test_an_administrator_may_take_the_wish_back() -> None:
    world = World("delete")
    world.put_volume(
        NAME, {NODE_KEY: "a", UID_KEY: "uid-of-a", ON_GONE_KEY: "delete"}, annotations={ON_GONE_KEY: "keep"}
    )
    assert "kubectl annotate" in world.refusal()


def test_a_node_that_is_there_is_asked() -> None:
    world = World()
    world.put_node("uid-of-a")
    assert world.ask() == "a"


def test_a_node_that_comes_back_begins_the_grace_anew() -> None:
    world = World()
    world.refusal()
    world.clock.now += 3000
    world.put_node("uid-of-a")
    assert world.ask() == "a"
    world.api.delete("/api/v1/nodes/a")
    world.clock.now += 500
    assert "counts as deleted in 3600 s" in world.refusal()


@pytest.mark.parametrize("uid", ["", "another"])
def test_days_later_it_is_another_absence(uid: str) -> None:
    world = World()
    if uid:
        world.put_node(uid)
    world.refusal()
    world.clock.now += 3 * 86400
    assert "counts as deleted in 3600 s" in world.refusal()


def test_a_pool_that_was_served_meanwhile_begins_the_grace_anew() -> None:
    world = World()
    world.put_node("another")
    world.refusal()
    world.clock.now += 3000
    world.announce(facts(POOL))
    with pytest.raises(DeadlineExceeded):
        world.routing().DeleteVolume(csi_pb2.DeleteVolumeRequest(volume_id=ID), cast("grpc.ServicerContext", Hasty()))
    world.announce(facts(OTHER))
    world.clock.now += 500
    assert "counts as deleted in 3600 s" in world.refusal()


def test_a_node_made_anew_begins_the_grace_anew() -> None:
    world = World()
    world.refusal()
    world.clock.now += 3000
    world.put_node("another")
    world.clock.now += 500
    assert "counts as deleted in 3600 s" in world.refusal()


def test_a_new_node_of_the_name_without_one_of_its_disks_may_be_the_old_one() -> None:
    world = World()
    world.put_node("another")
    world.refusal()
    world.announce(facts(OTHER), facts("", "slow", means=()))
    world.repeat(hours=3)
    assert "node a was made anew, but the disk of its pool 'slow' is not there" in world.refusal()
    world.announce(facts(OTHER), facts("00000000000000cc", "slow"))
    assert "counts as deleted in 3600 s" in world.refusal(), "it was not known to be gone until now"
    world.repeat(hours=1)
    assert world.ask() == ""


@pytest.mark.parametrize("known", [True, False])
def test_a_new_node_of_the_name_whose_agent_says_nothing_may_be_the_old_one(known: bool) -> None:
    world = World()
    world.put_node("another")
    world.announce(said="{}") if known else world.directory.replaced([])
    world.repeat(hours=3)
    assert "node a was made anew, but no agent of this driver tells which disks it has" in world.refusal()


def test_a_pool_that_comes_back_while_we_ask_is_not_gone() -> None:
    world = World()
    world.put_node("another")
    world.repeat(hours=1)
    world.announce(facts(POOL))
    assert "its pool is served again" in world.refusal()


def test_graces_do_not_grow_without_end() -> None:
    clock = Clock()
    graces = Grace(3600, clock)
    assert graces.left_s(POOL, "") == 3600
    clock.now += 3000
    for number in range(9_999):
        graces.left_s(str(number), "")
    assert graces.left_s(POOL, "") == 600
    graces.left_s("one more", "")
    assert graces.left_s(POOL, "") == 3600, "beginning anew is safe"


@pytest.mark.parametrize("attributes", [{}, {UID_KEY: "u"}])
@pytest.mark.parametrize(
    "terms",
    [[], [at("a"), at("b")], [at("a", "b")], [at("a", operator="NotIn")], [at("a", key="other")], [at(DIGEST)], [{}]],
)
def test_a_volume_that_does_not_say_where_it_was_is_kept(attributes: dict[str, str], terms: list[Any]) -> None:
    world = World()
    world.put_volume(NAME, {**attributes, ON_GONE_KEY: "delete"}, terms, annotations={ON_GONE_KEY: "delete"})
    assert "does not say which Node had it" in world.refusal()


BY_NAME: list[tuple[dict[str, str], list[Any]]] = [
    ({}, [at("a")]),  # as `csi-local-path manifests` prints it
    ({NODE_KEY: "a"}, []),
    ({NODE_KEY: "a", UID_KEY: ""}, [at("b")]),
]


@pytest.mark.parametrize(("attributes", "terms"), BY_NAME)
def test_where_a_node_is_known_by_name_only_an_administrator_must_say_so(
    attributes: dict[str, str], terms: list[Any]
) -> None:
    world = World()
    world.put_volume(NAME, {**attributes, ON_GONE_KEY: "delete"}, terms)
    assert "its node a (uid unknown) is gone. If it never comes back, run 'kubectl annotate" in world.refusal()
    world.put_volume(NAME, attributes, terms, annotations={ON_GONE_KEY: "delete"})
    world.repeat(hours=1)
    assert world.ask() == ""
    assert "a (uid unknown) is gone for good" in world.told.volumes[0][1]


@pytest.mark.parametrize(("attributes", "terms"), BY_NAME)
def test_where_a_node_is_known_by_name_only_any_of_that_name_is_asked(
    attributes: dict[str, str], terms: list[Any]
) -> None:
    world = World()
    world.put_volume(NAME, attributes, terms, annotations={ON_GONE_KEY: "delete"})
    world.refusal()
    world.clock.now += 3000
    world.put_node("whatever")
    assert world.ask() == "a"
    world.api.delete("/api/v1/nodes/a")
    world.clock.now += 1000
    assert "counts as deleted in 3600 s" in world.refusal()


def test_a_node_whose_name_is_no_label_is_found_by_what_its_agent_says() -> None:
    world, name = World(), "n" * 64
    world.put_volume(NAME, {}, [at(suited(name))], annotations={ON_GONE_KEY: "delete"})
    assert "does not say which Node had it" in world.refusal()
    world.directory.changed(node_lease(name, facts(OTHER)))
    world.api.put(f"/api/v1/nodes/{name}", {"metadata": {"name": name, "uid": "u"}})
    assert world.ask() == name


def test_what_manifests_prints_tells_the_place() -> None:
    volume = VolumeReport(ID, NAME, "", 2**20, None, None, "", "ok")
    spec = msgspec.convert(persistent_volume(volume, "a", "local-path"), PersistentVolume).spec
    assert spec.place(KEY) == "a"


def test_without_persistent_volume_nothing_is_known() -> None:
    world = World()
    world.api.delete(f"/api/v1/persistentvolumes/{NAME}")
    assert "no PersistentVolume tells where it was" in world.refusal()


def test_another_driver_s_volume_of_the_name_tells_nothing() -> None:
    world = World()
    csi = {"driver": "other", "volumeHandle": ID, "volumeAttributes": {NODE_KEY: "a", UID_KEY: "u"}}
    world.api.put(f"/api/v1/persistentvolumes/{NAME}", {"metadata": {"name": NAME}, "spec": {"csi": csi}})
    assert "no PersistentVolume tells where it was" in world.refusal()


def test_while_the_api_is_away_nothing_is_decided() -> None:
    world = World()
    world.refusal()
    world.clock.now += 4000
    world.api.fail(ApiError(0, "away"))
    assert "away; retry" in world.refusal()


def test_a_node_object_is_not_asked_for_at_each_call() -> None:
    world = World()
    objects = NodeObjects(lambda: world.api, world.clock)
    assert [objects.is_deleted("a") for _ in range(100)] == [True] * 100
    assert [path for _, path in world.api.calls] == ["/api/v1/nodes/a"]
    world.put_node("u")
    world.clock.now += 11
    assert not objects.is_deleted("a")
    world.api.fail(ApiError(503, "busy"))
    world.clock.now += 11
    assert not objects.is_deleted("a"), "not knowing is not gone"
    assert not objects.is_deleted("node__" + "0" * 32), "a digest tells no name"


def test_a_node_never_seen_is_given_up_in_the_end() -> None:
    clock = Clock()
    unseen = Unseen(300, clock)
    assert not unseen.is_given_up("a")
    for _ in range(6):
        clock.now += 60
        given_up = unseen.is_given_up("a")
    assert given_up
    clock.now += 700
    assert not unseen.is_given_up("a"), "that was another wish"
