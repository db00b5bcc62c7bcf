"""Which of many nodes are asked for what an earlier try made."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, cast

from grpc import StatusCode

from csi.cluster.candidates import spread
from csi.cluster.capacity import InFlight
from csi.cluster.creating import Creating
from csi.cluster.directory import Directory, Node
from csi.cluster.gone import NodeObjects
from csi.cluster.nodes import Nodes
from csi.cluster.unseen import Unseen
from csi.pb import csi_pb2
from csi.wire.statuses import ForwardedStatus
from tests.grpc.test_cluster_routing import creation, node_of
from tests.support.announced import facts, node_lease
from tests.support.kubeapi import MemoryApi
from tests.support.liar import volume

if TYPE_CHECKING:
    import grpc

NAMES = [f"n{number:02}" for number in range(40)]
ASKED = 32


class FakeNodes:
    """Forty nodes, of which some have the volume already; `calls` counts each node's, by method."""

    def __init__(self, *having: str) -> None:
        self.directory = Directory()
        self.directory.replaced([node_lease(name, facts(f"{number:016x}")) for number, name in enumerate(NAMES)])
        self.calls: Counter[tuple[str, str]] = Counter()
        self._having = having

    def check_complete(self) -> None:
        """Know all."""

    def call(self, node: Node, method: str, request: Any, _patience_s: float) -> Any:
        """Answer at once."""
        self.calls[method, node.name] += 1
        if method == "CreateVolume":
            made = volume(f"{node.pools[0].id}.{request.name}", node.name)
            return csi_pb2.CreateVolumeResponse(volume=made)
        if node.name not in self._having:
            raise ForwardedStatus(StatusCode.NOT_FOUND, "no such volume")
        return csi_pb2.ControllerGetVolumeResponse()


class Caller:
    """A caller with time."""

    def time_remaining(self) -> float:
        """Give the seconds that are left."""
        return 60.0


def made_by(nodes: FakeNodes) -> str:
    """Make a volume that may lie anywhere; gives its node."""
    creating = Creating(cast("Nodes", nodes), InFlight(), NodeObjects(MemoryApi), Unseen(300))
    try:
        return node_of(creating.create(creation("pvc-1"), cast("grpc.ServicerContext", Caller())).volume)
    finally:
        creating.stop()


def test_the_first_places_are_asked_and_no_more() -> None:
    order = spread("pvc-1", NAMES)
    nodes = FakeNodes()
    assert made_by(nodes) == order[0]
    asked = {name for method, name in nodes.calls if method == "ControllerGetVolume"}
    assert asked == set(order[:ASKED])
    assert nodes.calls["CreateVolume", order[0]] == 1


def test_what_lies_at_the_last_place_that_is_asked_is_found() -> None:
    last = spread("pvc-1", NAMES)[ASKED - 1]
    assert made_by(FakeNodes(last)) == last
