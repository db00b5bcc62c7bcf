"""Who is in the cluster, and whose a pool is when two say that it is theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from csi.cluster import announcement
from csi.cluster.announcement import Announcement
from csi.cluster.directory import Directory
from csi.cluster.leases import Lease, Metadata
from csi.cluster.sightings import STALE_S, Sightings
from provisioner.errors import PoolUnavailable
from tests.support.announced import Clock, credentials_of, facts, node_lease, slot_lease
from tests.support.malformed import certificates

if TYPE_CHECKING:
    from provisioner.facts import PoolFacts

P, Q = "00000000000000aa", "00000000000000bb"


class World:
    """A directory, its clock, and what it told of twins."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.twins: list[tuple[str, str, str]] = []
        self.directory = Directory(lambda *told: self.twins.append(told), Sightings(self.clock))

    def owner(self, pool_id: str) -> str:
        node = self.directory.owner(pool_id)
        return node.name if node else ""


@pytest.fixture
def world() -> World:
    return World()


def test_nodes_are_known_by_the_names_of_their_leases(world: World) -> None:
    forged = Lease(Metadata("node-b", annotations=node_lease("a", facts(P)).metadata.annotations))
    world.directory.replaced([node_lease("a", facts(P)), forged, Lease(Metadata("some-leader"))])
    assert [node.name for node in world.directory.nodes()] == ["a", "b"]


def test_a_node_that_calls_itself_a_controller_is_none(world: World) -> None:
    world.directory.replaced([node_lease("controller-0", facts(P))])
    assert world.directory.slot("controller-0") is None
    assert world.owner(P) == "controller-0"


def test_a_slot_that_goes_takes_no_node_of_its_name_along(world: World) -> None:
    world.directory.replaced([node_lease("controller-0", facts(P)), slot_lease("controller-0", "x")])
    world.directory.removed(slot_lease("controller-0", "x"))
    assert (world.directory.slot("controller-0"), world.owner(P)) == (None, "controller-0")
    world.directory.changed(slot_lease("controller-0", "x"))
    world.directory.replaced([node_lease("controller-0", facts(P))])
    assert (world.directory.slot("controller-0"), world.owner(P)) == (None, "controller-0")
    world.directory.removed(Lease(Metadata("some-leader")))
    world.directory.removed(node_lease("controller-0"))
    assert world.directory.nodes() == []


def test_a_long_name_has_a_digest_as_its_id(world: World) -> None:
    name = "n" * 64
    world.directory.changed(node_lease(name, facts(P)))
    node = world.directory.node(name)
    assert node is not None
    assert node.node_id.startswith("node__")
    assert world.directory.node_with_id(node.node_id) == node


def test_a_uid_is_believed_of_an_owner_of_the_right_kind_and_name_only(world: World) -> None:
    world.directory.changed(node_lease("a", facts(P)))
    assert getattr(world.directory.node("a"), "uid", "") == "uid-of-a"
    foreign = node_lease("b").metadata.owner_references
    stolen = Lease(Metadata("node-a", annotations=node_lease("a").metadata.annotations, owner_references=foreign))
    world.directory.changed(stolen)
    assert getattr(world.directory.node("a"), "uid", "?") == ""


def test_a_pool_that_nobody_claims_is_nobody_s(world: World) -> None:
    world.directory.replaced([node_lease("a", facts(P))])
    assert world.directory.owner(Q) is None


def test_the_one_that_had_a_pool_first_keeps_it(world: World) -> None:
    world.directory.replaced([node_lease("a", facts(P), facts(Q, "other"))])
    world.directory.changed(node_lease("b", facts(P)))
    assert (world.owner(P), world.owner(Q)) == ("a", "a")
    assert (P, "a", "b") in world.twins
    newcomer = world.directory.node("b")
    assert newcomer is not None
    assert not world.directory.owns(newcomer, P)


def test_the_order_of_the_first_list_tells_nothing(world: World) -> None:
    world.directory.replaced([node_lease("a", facts(P), facts(Q, "other")), node_lease("b", facts(P))])
    with pytest.raises(PoolUnavailable, match="claimed by several nodes"):
        world.owner(P)
    assert world.owner(Q) == "a", "only that pool is blocked"
    world.directory.changed(node_lease("b", renewal="2"))
    assert world.owner(P) == "a"


def test_a_disk_that_moves_takes_its_pool_along(world: World) -> None:
    world.directory.replaced([node_lease("a", facts(P))])
    world.directory.changed(node_lease("b", facts(P)))
    world.directory.changed(node_lease("a", renewal="2"))
    assert world.owner(P) == "b"


def late(renewal: str) -> Lease:
    """Give the Lease of node a whose agent was just started, before its disk is there."""
    return node_lease("a", facts("", "default"), facts(Q, "other"), renewal=renewal)


def here(renewal: str = "1") -> Lease:
    """Give the Lease of node a with all its disks."""
    return node_lease("a", facts(P), facts(Q, "other"), renewal=renewal)


@pytest.mark.parametrize("said", [None, "nonsense"])
def test_a_copy_is_not_the_pool_while_the_disk_of_the_one_that_had_it_is_late(world: World, said: str | None) -> None:
    world.directory.replaced([here()])
    world.directory.changed(node_lease("b", facts(P)))
    for renewal in "23":
        world.directory.changed(node_lease("a", said=said, renewal=renewal) if said else late(renewal))
        world.directory.changed(node_lease("b", facts(P), renewal=renewal))
        with pytest.raises(PoolUnavailable, match="was on node a, which waits for a disk"):
            world.owner(P)
        assert not any(world.directory.owns(node, P) for node in world.directory.nodes())
    world.directory.changed(here("4"))
    assert world.owner(P) == "a"


def test_a_copy_that_comes_while_the_disk_is_late_is_not_the_pool(world: World) -> None:
    world.directory.replaced([here()])
    world.directory.changed(late("2"))
    assert (world.owner(P), world.owner(Q)) == ("", "a")
    world.directory.replaced([node_lease("b", facts(P)), late("3")])
    with pytest.raises(PoolUnavailable, match="was on node a"):
        world.owner(P)
    assert world.twins[-1] == (P, "a", "b")
    world.directory.changed(here("4"))
    assert world.owner(P) == "a"


def test_a_pool_of_which_nobody_knows_who_was_first_stays_blocked_while_a_disk_is_late(world: World) -> None:
    world.directory.replaced([here(), node_lease("b", facts(P))])
    for renewal in "23":
        world.directory.changed(late(renewal))
        with pytest.raises(PoolUnavailable, match="claimed by several nodes"):
            world.owner(P)
    world.clock.now += STALE_S + 1
    world.directory.changed(late("4"))
    with pytest.raises(PoolUnavailable):
        world.owner(P)
    world.directory.changed(here("5"))
    assert world.owner(P) == "a"


@pytest.mark.parametrize("other", [(), (facts("cc" * 8),)], ids=["out of its values", "another disk in its place"])
def test_a_disk_that_moved_is_free_when_its_old_node_does_not_wait_for_it(
    world: World, other: tuple[PoolFacts, ...]
) -> None:
    world.directory.replaced([here()])
    world.directory.changed(late("2"))
    world.directory.changed(node_lease("b", facts(P)))
    world.directory.changed(node_lease("a", *other, facts(Q, "other"), renewal="3"))
    assert (world.owner(P), world.owner(Q)) == ("b", "a")
    world.directory.changed(here("4"))
    assert world.owner(P) == "b"


def test_a_node_that_waits_for_a_disk_keeps_it_only_while_it_lives(world: World) -> None:
    world.directory.replaced([here(), node_lease("b", facts(P))])
    world.directory.removed(node_lease("b"))
    world.directory.changed(late("2"))
    world.clock.now += STALE_S + 1
    world.directory.changed(node_lease("b", facts(P)))
    assert world.owner(P) == "b"
    world.clock.now += STALE_S + 1
    world.directory.changed(late("3"))
    assert world.owner(P) == "b", "it is its by now, and who waits cannot take it back"
    world.directory.changed(here("4"))
    world.directory.removed(here())
    assert world.owner(P) == "b"


def test_who_waits_for_more_than_it_may_announce_forgets_the_rest(world: World) -> None:
    for number in range(0, 1000, 100):
        claimed = (facts(f"{number + i:016x}", f"p{i}") for i in range(100))
        world.directory.changed(node_lease("a", *claimed, facts("", "late"), renewal=str(number)))
    assert len(world.directory.pool_ids_from("", 2000)) == 256 + 100
    world.directory.changed(node_lease("a", renewal="last"))
    assert world.directory.pool_ids_from("", 2000) == []


def test_a_dead_node_s_disk_is_believed_elsewhere(world: World) -> None:
    world.directory.replaced([node_lease("a", facts(P))])
    world.clock.now += STALE_S + 1
    world.directory.changed(node_lease("b", facts(P)))
    assert world.owner(P) == "b"


def test_a_node_that_is_removed_takes_its_claims_along(world: World) -> None:
    world.directory.replaced([node_lease("a", facts(P)), node_lease("b", facts(Q))])
    world.directory.removed(node_lease("a"))
    assert (world.owner(P), world.owner(Q)) == ("", "b")
    world.directory.replaced([])
    assert (world.directory.nodes(), world.directory.pool_ids_from("", 9)) == ([], [])


@pytest.mark.parametrize("said", ["", "{}", '{"schema": 99, "certificate": ""}', '{"schema": 1, "certificate": "x"}'])
def test_a_node_that_says_nonsense_is_there_but_of_no_use(world: World, said: str) -> None:
    world.directory.replaced([node_lease("a", facts(P)), node_lease("b", facts(Q))])
    world.directory.changed(node_lease("a", said=said))
    assert (world.owner(P), world.directory.unfit()) == ("", "a")
    world.directory.changed(node_lease("a", facts(P), renewal="2"))
    assert (world.owner(P), world.directory.unfit()) == ("a", "")


@pytest.mark.parametrize("what", certificates())
def test_a_node_with_a_strange_certificate_does_not_hide_the_others(world: World, what: str) -> None:
    said = announcement.encode(Announcement(1, certificates()[what], "10.0.0.1:9901", (facts(Q),)))
    world.directory.replaced([node_lease("a", said=said), node_lease("b", facts(P))])
    assert (world.directory.is_complete, world.owner(P), world.owner(Q)) == (True, "b", "")
    world.directory.changed(node_lease("a", facts(Q), renewal="2"))
    assert world.owner(Q) == "a"


def test_a_node_elsewhere_than_at_an_ip_is_of_no_use(world: World) -> None:
    certificate = credentials_of("a").certificate.decode()
    said = announcement.encode(Announcement(1, certificate, "unix:/csi/csi.sock", (facts(Q),)))
    world.directory.replaced([node_lease("a", said=said)])
    assert (world.owner(Q), world.directory.unfit()) == ("", "a")


def test_a_pool_whose_disk_was_never_there_keeps_lists_from_being_whole(world: World) -> None:
    world.directory.replaced([node_lease("a", facts("", "late"))])
    assert world.directory.unfit() == "a"


def test_room_counts_as_soon_as_a_node_tells_it(world: World) -> None:
    world.directory.replaced([node_lease("a", facts(P))])
    node = world.directory.node("a")
    assert node is not None
    world.directory.note_room(node, {P: 7, Q: 9})
    assert [(pool.id, pool.promisable_bytes) for pool in world.directory.nodes()[0].pools] == [(P, 7)]


def test_what_an_earlier_agent_told_counts_no_more(world: World) -> None:
    world.directory.replaced([node_lease("a", facts(P))])
    node = world.directory.node("a")
    assert node is not None
    other = node_lease("b", facts(P)).metadata.annotations
    world.directory.changed(Lease(Metadata("node-a", annotations=other)))
    world.directory.note_room(node, {P: 7})
    assert world.directory.nodes()[0].pools[0].promisable_bytes > 7


def test_pools_come_in_the_order_of_their_ids(world: World) -> None:
    ids = [f"{number:016x}" for number in range(0, 100, 10)]
    world.directory.replaced([node_lease(f"n{i}", facts(pool_id)) for i, pool_id in enumerate(reversed(ids))])
    assert world.directory.pool_ids_from(ids[3], 2) == ids[3:5]
    assert world.directory.pool_ids_from(f"{31:016x}", 1) == [ids[4]]
    assert world.directory.pool_ids_from("f", 2) == []


def test_nobody_is_judged_while_nothing_is_seen(world: World) -> None:
    world.directory.replaced([node_lease("a", facts(P))])
    world.clock.now += 10
    world.directory.lost()
    world.clock.now += STALE_S * 3
    assert world.directory.is_alive("a")
    assert world.directory.unheard_s("a") == 10
    world.directory.replaced([node_lease("a", facts(P))])
    assert world.directory.unheard_s("a") == 0, "it had no chance to be seen"
    world.clock.now += STALE_S + 1
    assert not world.directory.is_alive("a")


def test_a_writer_s_clock_does_not_matter(world: World) -> None:
    world.directory.changed(node_lease("a", facts(P), renewal="2099-01-01T00:00:00.000000Z"))
    world.clock.now += STALE_S - 1
    world.directory.changed(node_lease("a", facts(P), renewal="1999-01-01T00:00:00.000000Z"))
    world.clock.now += STALE_S - 1
    assert world.directory.is_alive("a")
    world.directory.changed(node_lease("a", facts(P), renewal="1999-01-01T00:00:00.000000Z"))
    world.clock.now += 2
    assert not world.directory.is_alive("a"), "the same renewal again is none"


def test_slots_are_known_by_name(world: World) -> None:
    world.directory.replaced([slot_lease("controller-0", "x"), slot_lease("controller-7", "y")])
    assert world.directory.slot("controller-0") is not None
    assert world.directory.slot("controller-7") is None
    assert credentials_of("x").server_name
