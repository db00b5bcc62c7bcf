"""Who is in the cluster: every node with its pools, as their Leases say, and which node each pool belongs to.

A pool's id should be claimed by one node. A copied disk, or a node that lies, makes two: the one that had it first,
and is alive, keeps it. Where we never saw who was first, that pool alone is blocked.

An agent that was just started does not know a pool whose disk is late: its announcement has no id there. What a node
claimed before it awaits for as long as its announcement has such a pool, or cannot be used, and that keeps others away
unless the pool is theirs by then: a copy must not become the pool because the original's disk is late.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec
import structlog
from sortedcontainers import SortedDict

from csi.cluster import announcement, leases
from csi.cluster.announcement import Announcement
from csi.cluster.certificates import server_name_of
from csi.cluster.sightings import Sightings
from csi.node_id import suited
from provisioner.errors import PoolUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from csi.cluster.leases import Lease
    from provisioner.facts import PoolFacts

log = structlog.get_logger()

_MOST_AWAITED = 256  # of a node, as many as it may announce
_UNUSABLE = Announcement(schema=announcement.SCHEMA, certificate="")


@dataclass(frozen=True, slots=True)
class Node:
    """A node as its Lease says. uid: of its Node object, '' where nobody vouches for it; address: '' where unusable."""

    name: str
    node_id: str
    uid: str
    address: str
    certificate: str
    server_name: str
    pools: tuple[PoolFacts, ...]
    only_if_unused: bool = False

    def pool_named(self, name: str) -> PoolFacts | None:
        """Give the pool of that name, the first one where the name is ''; None where it has none."""
        return next((pool for pool in self.pools if name in ("", pool.name)), None)


class Directory:
    """All nodes, and all slots of controllers, as a `Follower` of the Leases."""

    def __init__(
        self, on_twin: Callable[[str, str, str], None] | None = None, sightings: Sightings | None = None
    ) -> None:
        """on_twin: called with the pool's id, who keeps it ('' where nobody does), and who may not have it."""
        self.sightings = sightings or Sightings()
        self.is_complete = False
        self._on_twin = on_twin
        self._guard = threading.RLock()
        self._nodes: dict[str, Node] = {}
        self._by_id: dict[str, str] = {}
        self._awaited: dict[str, set[str]] = {}
        self._claims: SortedDict[str, list[str]] = SortedDict()
        self._owners: dict[str, str] = {}
        self._unfit: set[str] = set()
        self._slots: dict[str, Lease] = {}

    # As a Follower of the Leases.

    def replaced(self, found: list[Lease]) -> None:
        """Take the whole list."""
        with self._guard:
            self.sightings.resume()
            names = {lease.metadata.name for lease in found}
            for node in [node for node in self._nodes if leases.NODE_PREFIX + node not in names]:
                self._remove_node(node)
            for slot in [slot for slot in self._slots if slot not in names]:
                self._remove_slot(slot)
            for lease in found:
                self._note(lease)
            for pool_id in list(self._claims):  # when all claims are known: who comes first in a list is not the first
                self._settle(pool_id)
            self.is_complete = True

    def changed(self, lease: Lease) -> None:
        """Take a Lease's new state."""
        with self._guard:
            for pool_id in self._note(lease):
                self._settle(pool_id)

    def removed(self, lease: Lease) -> None:
        """Forget a node, or a slot."""
        with self._guard:
            if lease.metadata.name in leases.SLOTS:
                self._remove_slot(lease.metadata.name)
            elif leases.node_of(lease):
                self._remove_node(leases.node_of(lease))

    def lost(self) -> None:
        """Judge nobody until we see again."""
        with self._guard:
            self.sightings.lose()

    def _note(self, lease: Lease) -> set[str]:
        """Take a Lease in; gives the pools whose claims changed."""
        name = leases.node_of(lease)
        if lease.metadata.name in leases.SLOTS:
            self._slots[lease.metadata.name] = lease
        elif not name:
            return set()
        self.sightings.note(lease)
        if not name:
            return set()
        known = self._nodes.get(name)
        node = _node(name, lease, known)
        self._nodes[name] = node
        self._by_id[node.node_id] = name
        before, said = _ids(known) | self._awaited.pop(name, set()), _ids(node)
        if node.address and all(pool.id for pool in node.pools):
            self._unfit.discard(name)
            return self._claim(name, before, said)
        self._unfit.add(name)
        awaited = set(sorted(before - said)[:_MOST_AWAITED])
        if awaited:
            self._awaited[name] = awaited
        return self._claim(name, before, said | awaited)

    def _remove_slot(self, slot: str) -> None:
        self._slots.pop(slot, None)
        self.sightings.forget(slot)

    def _remove_node(self, name: str) -> None:
        self.sightings.forget(leases.NODE_PREFIX + name)
        node = self._nodes.pop(name, None)
        if node:
            self._unfit.discard(name)
            self._by_id.pop(node.node_id, None)
            claimed = _ids(node) | self._awaited.pop(name, set())
            for pool_id in self._claim(name, claimed, set()):
                self._settle(pool_id)

    def _claim(self, name: str, before: set[str], after: set[str]) -> set[str]:
        for pool_id in before - after:
            self._claims[pool_id].remove(name)
            if not self._claims[pool_id]:
                del self._claims[pool_id]
        for pool_id in after - before:
            self._claims.setdefault(pool_id, []).append(name)
        return before ^ after

    def _settle(self, pool_id: str) -> str:
        """Find whose a pool is, '' where that is unclear. It may be one's that only awaits it."""
        claims, owner = self._claims.get(pool_id, []), self._owners.get(pool_id, "")
        if owner not in claims:
            owner = ""
        claimants = [name for name in claims if owner in ("", name) or self._has(name, pool_id)]
        if len(claimants) > 1:
            living = [name for name in claimants if self.is_alive(name)]
            if owner not in living:
                owner = living[0] if len(living) == 1 and self._has(living[0], pool_id) else ""
            self._tell(pool_id, owner, claimants)
        elif claimants:
            owner = claimants[0]
        if owner:
            self._owners[pool_id] = owner
        elif not claimants:
            self._owners.pop(pool_id, None)
        return owner

    def _has(self, name: str, pool_id: str) -> bool:
        node = self._nodes.get(name)
        return node is not None and any(pool.id == pool_id for pool in node.pools)

    def _tell(self, pool_id: str, owner: str, claimants: list[str]) -> None:
        for name in claimants:
            if name != owner and self._on_twin:
                self._on_twin(pool_id, owner, name)

    # As whoever routes a call sees it.

    def owner(self, pool_id: str) -> Node | None:
        """Give the node that a pool is on; None where no node has it.

        PoolUnavailable where two say they do, or another than the one that awaits it.
        """
        with self._guard:
            having = [name for name in self._claims.get(pool_id, ()) if self._has(name, pool_id)]
            if not having:
                return None
            owner = self._settle(pool_id)
            if owner in having:
                return self._nodes[owner]
            claimants = ", ".join(self._claims[pool_id])
        if owner:
            raise PoolUnavailable(
                f"pool {pool_id} is claimed by {', '.join(having)}, but was on node {owner}, which waits for a disk; "
                "bring it back there, or, if it moved, take the pool out of that node's values"
            )
        raise PoolUnavailable(
            f"pool {pool_id} is claimed by several nodes ({claimants}); one disk is a copy, or a node lies: "
            "take the wrong one away, or give it a new identity"
        )

    def owns(self, node: Node, pool_id: str) -> bool:
        """Tell whether a pool is on that node, and nobody else's."""
        with self._guard:
            return self._has(node.name, pool_id) and self._settle(pool_id) == node.name

    def node(self, name: str) -> Node | None:
        """Give the node of that name."""
        return self._nodes.get(name)

    def node_with_id(self, node_id: str) -> Node | None:
        """Give the node of that node_id, which is the value of the topology key."""
        with self._guard:
            name = self._by_id.get(node_id)
            return self._nodes[name] if name is not None else None

    def nodes(self) -> list[Node]:
        """Give all nodes, in the order of their names."""
        with self._guard:
            return [self._nodes[name] for name in sorted(self._nodes)]

    def pool_ids_from(self, first: str, count: int) -> list[str]:
        """Give at most `count` pool ids in their order, beginning with `first` or what follows it."""
        with self._guard:
            found: Iterator[str] = self._claims.irange(minimum=first)
            return [pool_id for pool_id, _ in zip(found, range(count), strict=False)]

    def unfit(self) -> str:
        """Name a node of which not all volumes can be told, for its announcement or a disk is missing; '' if none."""
        return next(iter(sorted(self._unfit)), "")

    def is_alive(self, node_name: str) -> bool:
        """Tell whether a node's agent was heard of lately."""
        return self.sightings.is_alive(leases.NODE_PREFIX + node_name)

    def unheard_s(self, node_name: str) -> float:
        """Give for how long a node's agent was not heard of."""
        return self.sightings.age_s(leases.NODE_PREFIX + node_name)

    def note_room(self, node: Node, promisable_bytes: dict[str, int]) -> None:
        """Take in the room of pools, by id, as the node itself said in a reply."""
        with self._guard:
            known = self._nodes.get(node.name)
            if known is None or known.certificate != node.certificate:
                return
            pools = tuple(
                msgspec.structs.replace(pool, promisable_bytes=promisable_bytes.get(pool.id, pool.promisable_bytes))
                for pool in known.pools
            )
            self._nodes[node.name] = replace(known, pools=pools)

    def slot(self, name: str) -> Lease | None:
        """Give the Lease of a controllers' slot."""
        return self._slots.get(name)


def _ids(node: Node | None) -> set[str]:
    return {pool.id for pool in node.pools if pool.id} if node else set()


def _node(name: str, lease: Lease, known: Node | None) -> Node:
    uid = leases.node_uid_of(lease)
    try:
        said = announcement.decode(lease.metadata.annotations.get(announcement.ANNOTATION, ""))
        same = known is not None and known.certificate == said.certificate
        server_name = known.server_name if known and same else server_name_of(said.certificate)
        said.check_address()
    except ValueError as error:
        if known is None or known.address:
            log.warning("a node's announcement cannot be used", node=name, error=str(error))
        said, server_name = _UNUSABLE, ""
    ways = said.address, said.certificate, server_name
    return Node(name, suited(name), uid, *ways, said.pools, said.only_if_unused)
