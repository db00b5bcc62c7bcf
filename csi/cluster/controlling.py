"""Role `controller` put together: who is in the cluster, the way to them, and the service above it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi.cluster.capacity import Capacity, InFlight
from csi.cluster.certificates import new_credentials
from csi.cluster.creating import Creating
from csi.cluster.directory import Directory
from csi.cluster.events import Events
from csi.cluster.gone import Gone, NodeObjects
from csi.cluster.leases import SLOTS
from csi.cluster.nodes import Nodes
from csi.cluster.peers import Peers
from csi.cluster.routing import RoutingController
from csi.cluster.slots import Slots
from csi.cluster.sweep import Sweep
from csi.cluster.twins import Twins
from csi.cluster.unseen import Unseen
from csi.cluster.waiting import WaitingClaims
from csi.cluster.watching import Watching
from csi.pb import csi_pb2_grpc
from csi.server.figures import PREFIX, Family, Sample
from csi.server.server import new_server
from csi.services.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from csi.cluster.api import Api
    from csi.cluster.pod import Pod
    from csi.configuration import ControllerSettings
    from csi.server.interceptor import Observe

# Calls wait for nodes here, they do not work: one node that is slow must leave room for the others.
_WORKERS = 32


class Controlling:
    """A controller replica. `server` has no port yet; `start` begins the background work."""

    def __init__(
        self, api: Callable[[], Api], pod: Pod, settings: ControllerSettings, observe: Observe | None = None
    ) -> None:
        credentials = new_credentials()
        self.slots = Slots(api, pod.namespace, pod.name, credentials)
        self.events = Events(api)
        self.directory = Directory(Twins(self.events, self.is_leading).tell)
        self.peers = Peers(credentials)
        give_up_s = settings.node_down_reschedule_seconds
        self.nodes = Nodes(self.directory, self.peers, give_up_s)
        in_flight, node_objects = InFlight(), NodeObjects(api)
        self._creating = Creating(self.nodes, in_flight, node_objects, Unseen(give_up_s))
        gone = Gone(api, self.directory, node_objects, self.events, settings.node_gone_grace_seconds)
        service = RoutingController(self.nodes, self._creating, Capacity(self.directory, in_flight), gone)
        self._watch = Watching(api, pod.namespace, self.directory)
        self.sweep = Sweep(api, self.nodes, self.events, self.is_leading, settings)
        pause_s = settings.waiting_claims_seconds
        self.waiting = WaitingClaims(api, self.directory, self.events, self.is_leading, pause_s)
        self.server = new_server(workers=_WORKERS, observe=observe)
        csi_pb2_grpc.add_IdentityServicer_to_server(Identity(self), self.server)
        csi_pb2_grpc.add_ControllerServicer_to_server(service, self.server)

    @property
    def ready(self) -> bool:
        """True once the nodes are known and let us in; an API server that is away later changes nothing."""
        return self.directory.is_complete and self.slots.was_claimed

    def figures(self) -> Iterator[Family]:
        """Tell figures for /metrics."""
        nodes = self.directory.nodes()
        alive = sum(self.directory.is_alive(node.name) for node in nodes)
        yield _figure("nodes", "Nodes that have a Lease.", len(nodes))
        yield _figure("nodes_alive", "Nodes that renewed their Lease of late.", alive)
        yield _figure("nodes_silent", "Nodes that did not answer the last call to them.", self.nodes.silence.count())
        yield _figure("leading", "1 where this controller sweeps and tells of what all see.", self.is_leading())
        yield _figure("orphans", "Volumes that the last sweep found nobody to want.", self.sweep.found)
        yield _figure("sweeps_total", "Sweeps for such volumes.", self.sweep.sweeps, counter=True)
        yield _figure("orphans_discarded_total", "Such volumes sent to the trash.", self.sweep.discarded, counter=True)

    def is_leading(self) -> bool:
        """Tell whether we hold a slot and nobody that is alive holds one before it."""
        held = self.slots.held
        return bool(held) and not any(map(self._is_held, SLOTS[: SLOTS.index(held)]))

    def _is_held(self, slot: str) -> bool:
        lease = self.directory.slot(slot)
        return lease is not None and bool(lease.spec.holder_identity) and self.directory.sightings.is_alive(slot)

    def start(self) -> None:
        """Begin to look, to claim a slot, and to sweep."""
        for part in (self._watch, self.slots, self.events, self.sweep, self.waiting):
            part.start()

    def stop(self) -> None:
        """End the background work and give the slot back; the server is its caller's to stop."""
        for part in (self.waiting, self.sweep, self.events, self._watch, self.slots, self._creating):
            part.stop()
        self.peers.close()


def _figure(name: str, text: str, value: float, *, counter: bool = False) -> Family:
    return Family(f"{PREFIX}{name}", text, (Sample(value),), counter)
