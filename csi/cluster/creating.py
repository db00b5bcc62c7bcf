"""CreateVolume over nodes: find what an earlier try made, else try the places in order until one has room.

A try whose outcome is open ends the walk: the same call again finds out. Only 'no room' leads on to the next node.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import structlog
from grpc import StatusCode

from csi.cluster.candidates import spread, wanted_ids
from csi.cluster.gone import context_of
from csi.cluster.nodes import patience_of
from csi.pb import csi_pb2
from csi.wire import requests, topology
from csi.wire.statuses import ForwardedStatus
from provisioner.backends.choosing import content_of
from provisioner.errors import DeadlineExceeded, NodeUnavailable, NodeUnsuited, OutOfCapacity
from provisioner.names import folder_for
from provisioner.parameters import parse
from provisioner.sizing import size_for

if TYPE_CHECKING:
    import grpc

    from csi.cluster.capacity import InFlight
    from csi.cluster.directory import Node
    from csi.cluster.gone import NodeObjects
    from csi.cluster.nodes import Nodes
    from csi.cluster.unseen import Unseen
    from provisioner.backends import Content
    from provisioner.facts import PoolFacts
    from provisioner.model import NewVolume
    from provisioner.parameters import ClassParameters

log = structlog.get_logger()

# An earlier try went in the same order, so what it made is near the beginning.
_MOST_ASKED = 32
_ASKED_AT_ONCE = 16
_LONGEST_ASKING_S = 2.0
_REASONS_SHOWN = 5


class Place(NamedTuple):
    """A node and the pool on it that the class means."""

    node: Node
    pool: PoolFacts


@dataclass(frozen=True, slots=True)
class Wish:
    """A CreateVolume as it goes from node to node."""

    request: csi_pb2.CreateVolumeRequest
    wanted: NewVolume
    asked: ClassParameters
    content: Content
    context: grpc.ServicerContext

    def volume_id(self, pool_id: str) -> str:
        """Give the id that the volume has in a pool."""
        return f"{pool_id}.{folder_for(self.wanted.name)}"

    def size_bytes(self, pool: PoolFacts) -> int:
        """Give the size that the volume gets in a pool."""
        return size_for(self.wanted.capacity, pool.default_size_bytes)


class Creating:
    """Makes volumes on nodes."""

    def __init__(self, nodes: Nodes, in_flight: InFlight, objects: NodeObjects, unseen: Unseen) -> None:
        self._nodes, self._in_flight = nodes, in_flight
        self._objects, self._unseen = objects, unseen
        self._asking = ThreadPoolExecutor(_ASKED_AT_ONCE, thread_name_prefix="asking")

    def create(
        self, request: csi_pb2.CreateVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.CreateVolumeResponse:
        """Give the volume of that name, new or as an earlier try made it."""
        wanted = requests.new_volume(request)
        asked = parse(wanted.parameters)
        wish = Wish(request, wanted, asked, content_of(asked, wanted.capabilities), context)
        self._nodes.check_complete()
        node_ids = wanted_ids(request.accessibility_requirements)
        if node_ids is None:
            node_ids = spread(wanted.name, (node.node_id for node in self._nodes.directory.nodes()))
        if len(node_ids) == 1:
            return self._at(self._only_place(node_ids[0], wish), wish)
        return self._walk(node_ids, wish)

    # One node is wanted and no other: csi-provisioner with a selected node.

    def _only_place(self, node_id: str, wish: Wish) -> Place:
        node = self._nodes.directory.node_with_id(node_id)
        if node is None:
            self._refuse_unknown(node_id)
        return self._place(node, wish)

    def _refuse_unknown(self, node_id: str) -> NoReturn:
        """Say whether it is worth to wait for a node that has no Lease: its agent may be about to start."""
        if self._objects.is_deleted(node_id):
            raise NodeUnsuited(f"node {node_id} is not in the cluster any more; another node may do")
        if self._unseen.is_given_up(node_id):
            raise NodeUnsuited(f"no agent of this driver was seen on node {node_id} for long; another node may do")
        raise NodeUnavailable(f"no agent of this driver is known on node {node_id} yet; retry")

    def _place(self, node: Node, wish: Wish) -> Place:
        if not node.address:
            raise NodeUnavailable(f"node {node.name}: its announcement cannot be used; see the controller's log")
        pool = node.pool_named(wish.asked.pool)
        if pool is None:
            what = f"no pool {wish.asked.pool!r}" if wish.asked.pool else "no pool"
            raise NodeUnsuited(f"node {node.name} has {what}; another node may")
        if not pool.id:
            raise NodeUnsuited(f"node {node.name}: the disk of pool {pool.name!r} was never there; another node may do")
        if not pool.backend_for(wish.asked, wish.content):
            refusal = (
                pool.refusal(wish.asked) or f"pool {pool.name!r} has no means for raw block, or the filesystem asked"
            )
            raise NodeUnsuited(f"node {node.name}: {refusal}; another node may")
        if not self._nodes.directory.owns(node, pool.id):
            raise NodeUnsuited(f"node {node.name}: pool {pool.id} is claimed by another node too; another node may do")
        return Place(node, pool)

    def _at(self, place: Place, wish: Wish, *, only_if_fits: bool = False) -> csi_pb2.CreateVolumeResponse:
        """Let one node make the volume. Where no other will do it is asked even if it seems full: it knows best."""
        node, pool = place
        try:
            with self._in_flight.creating(pool, wish.size_bytes(pool), only_if_fits=only_if_fits):
                response = self._nodes.call(node, "CreateVolume", wish.request, patience_of(wish.context))
        except (NodeUnavailable, DeadlineExceeded) as error:
            if self._nodes.is_given_up(node) or self._objects.is_deleted(node.node_id):
                raise NodeUnsuited(f"{error}; it is given up for new volumes, another node may do") from error
            raise
        return self._checked(response.volume, place, wish)

    def _checked(self, volume: csi_pb2.Volume, place: Place, wish: Wish) -> csi_pb2.CreateVolumeResponse:
        """Make our own answer of a node's, which must be about its own pool, this name, and itself."""
        node, pool = place
        here = [topology.topology_of(node.node_id)]
        limit = wish.wanted.capacity.limit_bytes
        if volume.volume_id != wish.volume_id(pool.id) or list(volume.accessible_topology) != here:
            log.error("a node answered with another volume", node=node.name, volume_id=volume.volume_id[:128])
            raise NodeUnsuited(
                f"node {node.name} answered with a volume that is not the one asked; it cannot be believed"
            )
        if volume.capacity_bytes < wish.wanted.capacity.required_bytes or 0 < limit < volume.capacity_bytes:
            log.error("a node answered with another size", node=node.name, capacity_bytes=volume.capacity_bytes)
            raise NodeUnsuited(f"node {node.name} answered with a size that was not asked; it cannot be believed")
        return csi_pb2.CreateVolumeResponse(
            volume=csi_pb2.Volume(
                volume_id=volume.volume_id,
                capacity_bytes=volume.capacity_bytes,
                volume_context=context_of(node, wish.asked.on_node_gone),
                accessible_topology=here,
            )
        )

    # Several nodes will do.

    def _walk(self, node_ids: list[str], wish: Wish) -> csi_pb2.CreateVolumeResponse:
        reasons: list[Exception] = []
        places = self._places(node_ids, wish, reasons)
        found, silent = self._find(places[:_MOST_ASKED], wish)
        while found:
            response = self._try(found, wish, reasons, only_if_fits=False)
            if response:
                return response
            places.remove(found)  # the volume went just now, or the node lies
            found, silent = self._find(places[:_MOST_ASKED], wish)
        for place in places:
            if place.node.name not in silent:
                response = self._try(place, wish, reasons)
                if response:
                    return response
        raise _summary(reasons, [(error, self._nodes.is_given_up(node)) for node, error in silent.values()])

    def _try(
        self, place: Place, wish: Wish, reasons: list[Exception], *, only_if_fits: bool = True
    ) -> csi_pb2.CreateVolumeResponse | None:
        """Let a node make the volume; None where it has no room, and why in `reasons`. Else an error ends the walk."""
        try:
            return self._at(place, wish, only_if_fits=only_if_fits)
        except NodeUnsuited as error:
            reasons.append(error)
        except OutOfCapacity as error:
            reasons.append(OutOfCapacity(f"node {place.node.name} {error}"))
        except ForwardedStatus as error:
            if error.code is not StatusCode.RESOURCE_EXHAUSTED:
                raise
            reasons.append(error)
        return None

    def _places(self, node_ids: list[str], wish: Wish, reasons: list[Exception]) -> list[Place]:
        """Give the places that are there; why others are not goes into `reasons`."""
        places = []
        for node_id in node_ids:
            node = self._nodes.directory.node_with_id(node_id)
            if node is None:
                reasons.append(NodeUnsuited(f"no agent of this driver is known on node {node_id}"))
                continue
            try:
                places.append(self._place(node, wish))
            except (NodeUnsuited, NodeUnavailable) as error:
                reasons.append(error)
        return places

    def _find(self, places: list[Place], wish: Wish) -> tuple[Place | None, dict[str, tuple[Node, Exception]]]:
        """Ask the nodes, several at once, for a volume of the name; gives its place, and those that do not answer."""
        patience_s = min(_LONGEST_ASKING_S, patience_of(wish.context) / 2)

        def ask(place: Place) -> Exception | None:
            request = csi_pb2.ControllerGetVolumeRequest(volume_id=wish.volume_id(place.pool.id))
            try:
                self._nodes.call(place.node, "ControllerGetVolume", request, patience_s)
            except (ForwardedStatus, NodeUnavailable, DeadlineExceeded) as error:
                return error
            return None

        silent: dict[str, tuple[Node, Exception]] = {}
        for place, answer in zip(places, self._asking.map(ask, places), strict=True):
            if answer is None:
                return place, silent
            if not isinstance(answer, ForwardedStatus):
                silent[place.node.name] = (place.node, answer)
        return None, silent

    def stop(self) -> None:
        """End the threads that ask."""
        self._asking.shutdown(wait=False, cancel_futures=True)


def _summary(reasons: list[Exception], silent: list[tuple[Exception, bool]]) -> Exception:
    """Say in one sentence why no node would do.

    silent: those that did not answer, and whether they are given up; the others may have what an earlier try made.
    """
    every = [*(error for error, _ in silent), *reasons]
    if not every:
        return OutOfCapacity("no node of the cluster runs this driver's agent yet, or none that the topology admits")
    shown = "; ".join(str(reason) for reason in every[:_REASONS_SHOWN])
    more = f"; and {len(every) - _REASONS_SHOWN} more" if len(every) > _REASONS_SHOWN else ""
    kind = OutOfCapacity if all(given_up for _, given_up in silent) else NodeUnavailable
    return kind(f"no node can make the volume now: {shown}{more}")
