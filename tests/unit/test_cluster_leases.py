"""Leases written and followed: over conflicts, gaps, and an API server that is away."""

from __future__ import annotations

import base64
import json
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi.cluster import announcement, leases
from csi.cluster.announcement import SCHEMA, Announcement
from csi.cluster.api import ApiError
from csi.cluster.leases import Lease, OwnerReference
from csi.cluster.pauses import Backoff
from csi.cluster.pod import node_in_token, pod_of_controller, pod_of_node
from csi.cluster.renewing import Renewing, is_news
from csi.cluster.slots import Slots
from csi.cluster.watching import Watching
from csi.surroundings import SurroundingsError
from tests.support.announced import credentials_of, facts
from tests.support.clustered import eventually
from tests.support.kubeapi import MemoryApi

if TYPE_CHECKING:
    from collections.abc import Iterator

    from provisioner.facts import PoolFacts

NAMESPACE = "ns"
P = "00000000000000aa"
AWAY = ApiError(0, "away")


@pytest.fixture
def api() -> Iterator[MemoryApi]:
    api = MemoryApi()
    yield api
    api.close()


class Followed:
    """A follower that remembers."""

    def __init__(self) -> None:
        self.known: dict[str, Lease] = {}
        self.lists = 0
        self.losses = 0

    def replaced(self, found: list[Lease]) -> None:
        self.known = {lease.metadata.name: lease for lease in found}
        self.lists += 1

    def changed(self, lease: Lease) -> None:
        self.known[lease.metadata.name] = lease

    def removed(self, lease: Lease) -> None:
        del self.known[lease.metadata.name]

    def lost(self) -> None:
        self.losses += 1


def put(api: MemoryApi, name: str, holder: str = "h") -> None:
    api.put(leases.path_of(NAMESPACE, name), leases.body(NAMESPACE, name, {}, leases.spec_of(holder, 60)))


@contextmanager
def following(api: MemoryApi, name: str = "") -> Iterator[tuple[Followed, Watching]]:
    followed = Followed()
    watching = Watching(lambda: api, NAMESPACE, followed, name)
    watching.start()
    eventually(lambda: followed.lists or api.failure)
    try:
        yield followed, watching
    finally:
        watching.stop()


def test_changes_are_followed(api: MemoryApi) -> None:
    put(api, "a")
    with following(api) as (followed, _):
        assert set(followed.known) == {"a"}
        put(api, "b")
        eventually(lambda: set(followed.known) == {"a", "b"})
        api.delete(leases.path_of(NAMESPACE, "a"))
        eventually(lambda: set(followed.known) == {"b"})
        assert (followed.lists, followed.losses) == (1, 0)


def test_a_long_list_comes_in_pages(api: MemoryApi) -> None:
    for number in range(1201):
        put(api, f"l{number}")
    with following(api) as (followed, _):
        assert len(followed.known) == 1201
        assert [method for method, _ in api.calls].count("GET") == 3


def test_one_lease_is_followed_by_its_name(api: MemoryApi) -> None:
    put(api, "controller-0")
    put(api, "controller-1")
    with following(api, "controller-1") as (followed, _):
        assert set(followed.known) == {"controller-1"}
        put(api, "controller-0", "other")
        put(api, "controller-1", "other")
        eventually(lambda: followed.known["controller-1"].spec.holder_identity == "other")
        assert set(followed.known) == {"controller-1"}


@pytest.mark.parametrize("how", ["cut", "expired"])
def test_after_a_gap_the_list_is_read_anew(api: MemoryApi, how: str) -> None:
    put(api, "a")
    with following(api) as (followed, _):
        if how == "cut":
            api.fail(AWAY)
            eventually(lambda: followed.losses)
            api.fail(None)
        else:
            api.forget_history()
        put(api, "b")
        eventually(lambda: set(followed.known) == {"a", "b"} and followed.lists >= 2)


def test_hurry_makes_a_try_at_most_now_and_then(api: MemoryApi) -> None:
    api.fail(AWAY)
    with following(api) as (_, watching):
        eventually(lambda: api.calls)
        for _ in range(1000):
            watching.hurry()
        eventually(lambda: len(api.calls) >= 2)
        assert len(api.calls) < 10, "anyone on the network can cause handshakes"


def test_while_all_is_seen_a_handshake_asks_nobody(api: MemoryApi) -> None:
    with following(api) as (followed, watching):
        eventually(lambda: len(api.calls) == 2)
        for _ in range(1000):
            watching.hurry()
        put(api, "a")
        eventually(lambda: followed.known)
        assert len(api.calls) == 2


def slots_of(api: MemoryApi, holder: str, **more: float) -> Slots:
    return Slots(lambda: api, NAMESPACE, holder, credentials_of(holder), look_s=0.01, **more)


def test_controllers_take_the_slots_in_order_and_give_them_back(api: MemoryApi) -> None:
    first, second, third = (slots_of(api, name) for name in "xyz")
    first.start()
    eventually(lambda: first.held == "controller-0")
    second.start()
    eventually(lambda: second.held == "controller-1")
    third.start()
    first.stop()
    eventually(lambda: third.held == "controller-0")
    lease = api.object(leases.path_of(NAMESPACE, "controller-0"))
    said = announcement.decode(lease["metadata"]["annotations"][announcement.ANNOTATION])
    assert said.certificate == credentials_of("z").certificate.decode()
    for slots in (second, third):
        slots.stop()
    assert first.held == ""
    assert lease["spec"]["holderIdentity"] == "z"
    assert api.object(leases.path_of(NAMESPACE, "controller-0"))["spec"]["holderIdentity"] == ""


def test_a_restarted_controller_takes_its_own_slot_at_once(api: MemoryApi) -> None:
    put(api, "controller-0", "other")
    put(api, "controller-1", "x")
    slots = slots_of(api, "x")
    slots.start()
    eventually(lambda: slots.held == "controller-1")
    slots.stop()


def test_a_slot_that_is_not_renewed_is_taken(api: MemoryApi) -> None:
    put(api, "controller-0", "dead")
    put(api, "controller-1", "dead too")
    slots = slots_of(api, "x", take_s=0.3)
    slots.start()
    eventually(lambda: slots.held == "controller-0")
    slots.stop()


def test_a_slot_that_another_took_is_not_ours(api: MemoryApi) -> None:
    slots = slots_of(api, "x", renew_s=0.02)
    slots.start()
    eventually(lambda: slots.held)
    put(api, "controller-0", "thief")
    eventually(lambda: slots.held == "controller-1")
    slots.stop()
    assert api.object(leases.path_of(NAMESPACE, "controller-0"))["spec"]["holderIdentity"] == "thief"


def test_without_the_api_a_slot_is_ours_only_for_a_while(api: MemoryApi) -> None:
    slots = slots_of(api, "x", renew_s=0.02, take_s=0.3)
    slots.start()
    eventually(lambda: slots.held)
    api.fail(AWAY)
    eventually(lambda: not slots.held)
    api.fail(None)
    eventually(lambda: slots.held == "controller-0")
    slots.stop()


class Announcer:
    """A node whose facts a test changes."""

    def __init__(self) -> None:
        self.pools = (facts(P),)
        self.uid = "uid-of-a"

    def __call__(self) -> Announcement:
        return Announcement(SCHEMA, "PEM", "10.0.0.1:9901", self.pools)

    def owner(self) -> OwnerReference:
        return OwnerReference("Node", "a", self.uid)


@contextmanager
def renewing(api: MemoryApi, announcer: Announcer, renew_s: float = 60) -> Iterator[Renewing]:
    found = Renewing(lambda: api, NAMESPACE, "pod", "a", announcer.owner, announcer, renew_s=renew_s, look_s=0.01)
    found.start()
    yield found
    found.stop()


def said_by_a(api: MemoryApi) -> Announcement:
    annotations = api.object(leases.path_of(NAMESPACE, "node-a"))["metadata"]["annotations"]
    return announcement.decode(annotations[announcement.ANNOTATION])


def test_a_node_s_lease_belongs_to_its_node(api: MemoryApi) -> None:
    with renewing(api, Announcer()) as found:
        eventually(lambda: found.written_at)
    owner = {"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "uid-of-a"}
    assert api.object(leases.path_of(NAMESPACE, "node-a"))["metadata"]["ownerReferences"] == [owner]
    assert {method for method, _ in api.calls} == {"PATCH"}, "a node need not read its Lease"


def test_a_node_that_came_back_as_another_owns_its_lease_again(api: MemoryApi) -> None:
    """Its agent outlived the Node, and the kubelet has brought a new token."""
    announcer = Announcer()
    with renewing(api, announcer, renew_s=0.03) as found:
        eventually(lambda: found.written_at)
        announcer.uid = "uid-of-another-a"
        eventually(
            lambda: (
                api.object(leases.path_of(NAMESPACE, "node-a"))["metadata"]["ownerReferences"][0]["uid"]
                == announcer.uid
            )
        )


def test_news_is_written_soon_and_the_rest_with_the_next_renewal(api: MemoryApi) -> None:
    announcer = Announcer()
    with renewing(api, announcer) as found:
        eventually(lambda: found.written_at)
        announcer.pools = (facts(P, room=10 * 2**30 - 1),)
        announcer.pools = (facts(P, room=2**30),)
        eventually(lambda: said_by_a(api).pools == announcer.pools)
    assert len(api.calls) == 2


def test_a_lease_is_renewed(api: MemoryApi) -> None:
    with renewing(api, Announcer(), renew_s=0.03):
        eventually(lambda: len(api.calls) > 3)


def test_a_node_announces_itself_when_the_api_comes(api: MemoryApi) -> None:
    api.fail(AWAY)
    with renewing(api, Announcer(), renew_s=0.1) as found:
        eventually(lambda: len(api.calls) >= 1)
        assert found.written_at is None
        api.fail(None)
        eventually(lambda: found.written_at)


@pytest.mark.parametrize(
    ("new", "told"),
    [
        ((facts(P),), False),
        ((facts(P, room=10 * 2**30 - 2**20),), False),
        ((facts(P, room=9 * 2**30),), True),
        ((facts(P, room=0),), True),
        ((facts(P, "renamed"),), True),
        ((facts(""),), True),
        ((facts(P, means=("directory", "subvolume")),), True),
        ((facts(P), facts("00000000000000bb", "more")), True),
        ((), True),
    ],
)
def test_what_is_news(new: tuple[PoolFacts, ...], told: bool) -> None:
    old, found = (Announcement(SCHEMA, "PEM", "a:1", pools) for pools in ((facts(P),), new))
    assert is_news(old, found) is told


def test_an_empty_pool_s_first_room_is_news() -> None:
    old, found = (Announcement(SCHEMA, "PEM", "a:1", (facts(P, room=room),)) for room in (0, 1))
    assert is_news(old, found)


def test_pauses_grow_and_begin_again() -> None:
    backoff = Backoff(1, 4)
    pauses = [backoff.next() for _ in range(5)]
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, (1, 2, 4, 4, 4), strict=True))
    backoff.reset()
    assert backoff.next() <= 1


def token(claims: object, tmp_path: Path) -> Path:
    path = tmp_path / "token"
    part = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=")
    path.write_bytes(b"e30." + part + b".c2ln")
    return path


def test_the_node_stands_in_the_token(tmp_path: Path) -> None:
    claims = {
        "aud": ["x"],
        "kubernetes.io": {"namespace": "ns", "node": {"name": "a", "uid": "u"}, "pod": {"name": "p"}},
    }
    assert node_in_token(token(claims, tmp_path)) == OwnerReference("Node", "a", "u")


@pytest.mark.parametrize("claims", [{}, {"kubernetes.io": {}}, {"kubernetes.io": {"node": {"name": "a"}}}, [], 7])
def test_a_token_without_node_names_none(tmp_path: Path, claims: object) -> None:
    assert node_in_token(token(claims, tmp_path)) is None
    (tmp_path / "token").write_bytes(b"opaque")
    assert node_in_token(tmp_path / "token") is None
    assert node_in_token(tmp_path / "none") is None


NODE_ENV = {"POD_NAME": "p", "POD_NAMESPACE": "ns", "NODE_NAME": "a", "POD_IP": "10.0.0.1"}


def test_a_pod_is_who_its_environment_says() -> None:
    assert pod_of_node(NODE_ENV).address(9901) == "10.0.0.1:9901"
    assert pod_of_node({**NODE_ENV, "POD_IP": "fd00::1"}).address(9901) == "[fd00::1]:9901"
    assert pod_of_controller({"POD_NAME": "p", "POD_NAMESPACE": "ns"}).namespace == "ns"


@pytest.mark.parametrize("missing", sorted(NODE_ENV))
def test_what_the_environment_lacks_is_named(missing: str) -> None:
    with pytest.raises(SurroundingsError, match=f"^{missing}: wanted"):
        pod_of_node({**NODE_ENV, missing: ""})


def test_no_address_is_refused() -> None:
    with pytest.raises(SurroundingsError, match="wanted an IP address, found 'x'"):
        pod_of_node({**NODE_ENV, "POD_IP": "x"})


def test_a_name_too_long_for_a_lease_is_refused() -> None:
    assert leases.name_for("n" * 248)
    with pytest.raises(ValueError, match="at most 248 characters, found 249"):
        leases.name_for("n" * 249)


def test_no_thread_is_left(api: MemoryApi) -> None:
    with renewing(api, Announcer()) as found:
        eventually(lambda: found.written_at)
    assert "lease" not in {thread.name for thread in threading.enumerate()}
