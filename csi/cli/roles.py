"""The roles of `serve`: what each is made of, and in which order it starts and ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from csi.config import load_configuration, load_settings
from csi.node_id import NodeIdError, node_id
from csi.server.figures import of_pools
from csi.server.server import build_node_server, build_server
from csi.surroundings import SurroundingsError
from provisioner.assembly import Provisioner

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import grpc

    from csi.server.figures import Source
    from csi.server.interceptor import Observe


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says.

    grace_s: how long running calls may take once the end is asked for. listen_port: for controllers, at a node.
    http_port: 0 for none.
    """

    role: str
    config: Path
    endpoint: str
    node_id: str
    grace_s: float
    listen_port: int
    http_host: str
    http_port: int


class Role(Protocol):
    """Made, then prepared, then its servers are started, then it; at the end its servers are stopped, then it."""

    name: str  # under which it serves, for the log

    @property
    def ready(self) -> bool:
        """Tell whether calls can be answered."""

    @property
    def sources(self) -> Sequence[Source]:
        """Tell figures for /metrics."""

    def prepare(self, observe: Observe | None, /) -> Sequence[grpc.Server]:
        """Take what only one process may have, and give the servers; the first one is for the unix socket.

        May wait, with nothing half done.
        """

    def start(self) -> None:
        """Begin to work; calls come already."""

    def stop(self) -> None:
        """End the work, and give everything back."""


class Standalone:
    """The volumes of this machine on one socket."""

    def __init__(self, options: Options) -> None:
        settings = load_settings(options.config)
        self.name = node_id(options.node_id or settings.node_id)
        self._provisioner = Provisioner(settings)

    @property
    def ready(self) -> bool:
        """True once all pools were read."""
        return self._provisioner.volumes.ready

    @property
    def sources(self) -> Sequence[Source]:
        """Tell of the pools."""
        return [of_pools(self._provisioner.figures)]

    def prepare(self, observe: Observe | None, /) -> Sequence[grpc.Server]:
        """Pools are locked before the socket is bound: who holds the pools is the server."""
        self._provisioner.lock()
        return [build_server(self._provisioner, self.name, observe=observe)]

    def start(self) -> None:
        """Read the pools."""
        self._provisioner.start()

    def stop(self) -> None:
        """Let the pools go."""
        self._provisioner.stop()


class Node(Standalone):
    """A node of a cluster: the kubelet's socket, and a port for controllers."""

    def __init__(self, options: Options) -> None:
        from csi.cluster.connecting import Connecting  # noqa: PLC0415 - memory
        from csi.cluster.pod import pod_of_node  # noqa: PLC0415 - likewise

        super().__init__(options)
        self._pod = pod_of_node()
        wanted = node_id(environ={"NODE_NAME": self._pod.node_name})
        if self.name != wanted:
            raise NodeIdError(
                f"nodeId: wanted none, for role node takes it from NODE_NAME ({wanted!r}), found {self.name!r}"
            )
        self._port = options.listen_port
        self._api = Connecting()

    def prepare(self, observe: Observe | None, /) -> Sequence[grpc.Server]:
        """Make the port after the lock: an agent that waits for its predecessor must not answer for it."""
        from csi.cluster.agent import Agent  # noqa: PLC0415 - memory

        self._provisioner.lock()
        self._agent = Agent(self._api, self._pod, self._provisioner, self.name, self._port, observe)
        return [build_node_server(self._provisioner, self.name, observe=observe), self._agent.server]

    def start(self) -> None:
        """Read the pools, then tell controllers of them."""
        super().start()
        self._agent.start()

    def stop(self) -> None:
        """Tell nothing more, and let the pools go."""
        if hasattr(self, "_agent"):
            self._agent.stop()
        super().stop()


class Controller:
    """A controller replica of a cluster, for csi-provisioner and csi-resizer beside it."""

    def __init__(self, options: Options) -> None:
        from csi.cluster.connecting import Connecting  # noqa: PLC0415 - memory
        from csi.cluster.controlling import Controlling  # noqa: PLC0415 - likewise
        from csi.cluster.pod import pod_of_controller  # noqa: PLC0415 - likewise

        pod = pod_of_controller()
        self.name = pod.name
        settings = load_configuration(options.config).controller
        self._make: Callable[[Observe | None], Controlling] = partial(Controlling, Connecting(), pod, settings)
        self._controlling: Controlling | None = None

    @property
    def ready(self) -> bool:
        """True once the nodes are known and let us in."""
        return self._controlling is not None and self._controlling.ready

    @property
    def sources(self) -> Sequence[Source]:
        """Tell of nodes and of sweeps."""
        return [lambda: self._controlling.figures() if self._controlling else ()]

    def prepare(self, observe: Observe | None, /) -> Sequence[grpc.Server]:
        """Make everything; nothing is asked yet."""
        self._controlling = self._make(observe)
        return [self._controlling.server]

    def start(self) -> None:
        """Look for nodes, and for a slot."""
        if self._controlling:
            self._controlling.start()

    def stop(self) -> None:
        """Give the slot back."""
        if self._controlling:
            self._controlling.stop()


_ROLES: dict[str, Callable[[Options], Role]] = {"standalone": Standalone, "node": Node, "controller": Controller}


def role_of(options: Options) -> Role:
    """Make the role; SettingsError, NodeIdError or SurroundingsError where what it needs is wrong."""
    try:
        return _ROLES[options.role](options)
    except ImportError as error:
        raise SurroundingsError(
            f"role {options.role}: {error}; it needs more packages: pip install 'csi-local-path[cluster]'"
        ) from error
