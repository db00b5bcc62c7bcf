"""What role `node` has beside the kubelet's socket: the port for controllers, and the Lease that leads them to it.

None of it is needed by the kubelet's calls, and none of it makes them wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi.cluster.announcement import SCHEMA, Announcement
from csi.cluster.certificates import new_credentials
from csi.cluster.leases import SLOTS
from csi.cluster.orphans import NodeController
from csi.cluster.peers import SERVER_OPTIONS, server_credentials
from csi.cluster.pod import node_in_token
from csi.cluster.renewing import Renewing
from csi.cluster.room import RoomInterceptor
from csi.cluster.trust import slots
from csi.cluster.watching import Watching
from csi.pb import csi_pb2_grpc
from csi.server.server import new_server
from csi.server.sockets import EndpointError
from csi.services.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi.cluster.api import Api
    from csi.cluster.pod import Pod
    from csi.server.interceptor import Observe
    from provisioner.assembly import Provisioner


class Agent:
    """The cluster's side of a node. port: on all addresses; 0 for any that is free."""

    def __init__(
        self,
        api: Callable[[], Api],
        pod: Pod,
        provisioner: Provisioner,
        node_id: str,
        port: int,
        observe: Observe | None = None,
    ) -> None:
        self._credentials = new_credentials()
        self._provisioner = provisioner
        self._trust = slots()
        self._watches = [Watching(api, pod.namespace, *pair) for pair in zip(self._trust, SLOTS, strict=True)]
        self.server = new_server(
            observe=observe, inner=[RoomInterceptor(provisioner.promisable_bytes)], options=SERVER_OPTIONS
        )
        csi_pb2_grpc.add_IdentityServicer_to_server(Identity(provisioner.volumes), self.server)
        csi_pb2_grpc.add_ControllerServicer_to_server(NodeController(provisioner, node_id), self.server)
        self.port = self._listen(port)
        self._address = pod.address(self.port)
        self.renewing = Renewing(api, pod.namespace, pod.name, pod.node_name, node_in_token, self._announcement)

    def _listen(self, port: int) -> int:
        credentials = server_credentials(self._credentials, self.trusted, self._hurry)
        try:
            return self.server.add_secure_port(f"[::]:{port}", credentials)
        except RuntimeError as error:
            raise EndpointError(f"port {port}: cannot be had for controllers; choose another --listen-port") from error

    def start(self) -> None:
        """Serve controllers, and tell them where; the pools must have been read."""
        self.server.start()
        for watch in self._watches:
            watch.start()
        self.renewing.start()

    def stop(self) -> None:
        """End the background work; the server is its caller's to stop."""
        for watch in self._watches:
            watch.stop()
        self.renewing.stop()

    def trusted(self) -> list[str]:
        """Give the certificates of the controllers that may come in."""
        return [trust.certificate for trust in self._trust if trust.certificate]

    def _hurry(self) -> None:
        for watch in self._watches:
            watch.hurry()

    def _announcement(self) -> Announcement:
        return Announcement(
            schema=SCHEMA,
            certificate=self._credentials.certificate.decode(),
            address=self._address,
            pools=self._provisioner.facts(),
            only_if_unused=True,
        )
