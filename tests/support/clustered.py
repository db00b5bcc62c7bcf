"""A cluster in one process: real nodes with real pools and real TLS on loopback, a controller, an API in memory."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from csi.cluster import leases
from csi.cluster.agent import Agent
from csi.cluster.controlling import Controlling
from csi.cluster.pod import Pod
from csi.configuration import ControllerSettings
from csi.pb import csi_pb2_grpc
from csi.server.server import build_node_server
from provisioner.assembly import Provisioner
from provisioner.settings import PoolSettings, Settings
from tests.support.kubeapi import MemoryApi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAMESPACE = "csi-local-path"
PATIENCE_S = 20.0


def eventually(condition: Callable[[], object], what: str = "it") -> None:
    """Wait for what other threads will do."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"{what} never came"
        time.sleep(0.005)


@dataclass
class ClusterNode:
    """One node: its pools in `folder`, and its agent. `stop` is its death, `start` its return."""

    name: str
    folder: Path  # also of the kubelet's socket, csi.sock
    api: MemoryApi
    pools: list[str]
    options: dict[str, Any] = field(default_factory=dict)
    provisioner: Provisioner = field(init=False)
    agent: Agent = field(init=False)
    kubelets: grpc.Server = field(init=False)

    def start(self) -> None:
        """Serve, and announce."""
        pools = [
            PoolSettings(name=name, path=str(self.folder / name), init="if-empty", reserve="0", **self.options)
            for name in self.pools
        ]
        for pool in pools:
            Path(pool.path).mkdir(parents=True, exist_ok=True)
        settings = Settings(
            pools=pools, target_roots=[str(self.folder)], measure_interval_seconds=3600, enforce="besteffort"
        )
        self.provisioner = Provisioner(settings)
        self.provisioner.lock()
        pod = Pod(f"agent-{self.name}", NAMESPACE, self.name, "127.0.0.1")
        self.agent = Agent(lambda: self.api, pod, self.provisioner, self.name, 0)
        self.kubelets = build_node_server(self.provisioner, self.name)
        self.kubelets.add_insecure_port(f"unix://{self.folder}/csi.sock")
        self.kubelets.start()
        self.provisioner.start()
        self.agent.start()

    def stop(self) -> None:
        """Serve no more; the Lease stays."""
        self.agent.stop()
        self.agent.server.stop(None).wait()
        self.kubelets.stop(None).wait()
        self.provisioner.stop()

    @property
    def lease_path(self) -> str:
        """Where its Lease is."""
        return leases.path_of(NAMESPACE, leases.name_for(self.name))

    def pool_id(self, name: str = "") -> str:
        """Give the id of a pool of it."""
        return next(pool.id for pool in self.provisioner.facts() if name in ("", pool.name))


@dataclass
class Cluster:
    """Nodes by name, and one controller; `controller` is its stub."""

    api: MemoryApi
    folder: Path
    stack: ExitStack
    nodes: dict[str, ClusterNode] = field(default_factory=dict)
    controlling: Controlling = field(init=False)
    controller: csi_pb2_grpc.ControllerStub = field(init=False)
    identity: csi_pb2_grpc.IdentityStub = field(init=False)

    def add(self, name: str, *pools: str, **options: Any) -> ClusterNode:
        """Start a node; its Node object is there as well."""
        self.api.put(f"/api/v1/nodes/{name}", {"metadata": {"name": name, "uid": f"uid-of-{name}"}})
        node = ClusterNode(name, self.folder / name, self.api, list(pools), options)
        node.start()
        self.nodes[name] = node
        self.stack.callback(node.stop)
        eventually(lambda: node.agent.renewing.written_at, f"the Lease of {name}")
        self._own(node)
        return node

    def _own(self, node: ClusterNode) -> None:
        """Give the Lease its owner, which in a pod the token names."""
        lease = self.api.object(node.lease_path)
        lease["metadata"]["ownerReferences"] = [{"kind": "Node", "name": node.name, "uid": f"uid-of-{node.name}"}]
        self.api.put(node.lease_path, lease)

    def control(self, **settings: float) -> None:
        """Start the controller, and wait until it knows all nodes and they let it in."""
        pod = Pod("controller-a", NAMESPACE)
        self.controlling = Controlling(lambda: self.api, pod, ControllerSettings(**settings))
        self.controlling.server.add_insecure_port(f"unix://{self.folder}/csi.sock")
        self.controlling.server.start()
        self.controlling.start()
        self.stack.callback(self.controlling.stop)
        self.stack.callback(lambda: self.controlling.server.stop(None).wait())
        channel = self.stack.enter_context(grpc.insecure_channel(f"unix://{self.folder}/csi.sock"))
        self.controller = csi_pb2_grpc.ControllerStub(channel)
        self.identity = csi_pb2_grpc.IdentityStub(channel)
        eventually(lambda: self.controlling.ready, "the controller")
        for node in self.nodes.values():
            eventually(lambda node=node: self.is_trusted_by(node), f"the trust of {node.name}")  # type: ignore[misc] # the default is for the loop

    def is_trusted_by(self, node: ClusterNode) -> bool:
        """Tell whether a node lets the controller in by now."""
        known = self.controlling.directory.node(node.name)
        return known is not None and bool(known.uid) and bool(node.agent.trusted())


@contextmanager
def clustered() -> Iterator[Cluster]:
    """Give a cluster without nodes."""
    folder = Path(tempfile.mkdtemp(prefix="csi-"))  # sockets need short paths
    api = MemoryApi()
    try:
        with ExitStack() as stack:
            stack.callback(api.close)
            yield Cluster(api, folder, stack)
    finally:
        shutil.rmtree(folder)
