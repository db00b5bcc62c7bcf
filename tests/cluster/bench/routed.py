"""A create through the controller, and the same at a standalone driver's socket, on one filesystem."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tests.bench.client import Client
from tests.bench.figures import p50, spread, timed_ms
from tests.bench.table import Row
from tests.cluster.bench.world import ANY_SIZE, World, calling
from tests.cluster.driver import controllers
from tests.cluster.kube import Kube, Object, is_running
from tests.cluster.lab.driver_image import tag
from tests.cluster.lab.pools import DISKS
from tests.cluster.lab.site import NAMESPACE, Node, nodes
from tests.cluster.lab.volumes import root
from tests.cluster.manifests import TOPOLOGY_KEY, unhurried

_NAME = "standalone"
_DISK = DISKS[0]
_ERASE_S = 60.0


def creating(world: World) -> list[Row]:
    """Create volumes at both sockets in turns, run by run."""
    node = nodes()[0]
    routed: list[list[float]] = []
    direct: list[list[float]] = []
    with (
        standalone(world.kube, node) as pod,
        calling(controllers(world.kube)[0]) as controller,
        calling(pod) as alone,
    ):
        for name in ("w0", "w1"):  # the first ones open connections, and take memory
            _run([controller, alone], node, name, 10)
        for number in range(world.extent.rounds):
            samples = _run([controller, alone], node, f"r{number}", world.extent.creates)
            routed.append(samples[0])
            direct.append(samples[1])
    through, at_once = [p50(run) for run in routed], [p50(run) for run in direct]
    return [
        Row(
            "create",
            "controller's routed create / create on a standalone socket",
            median(through) / median(at_once),
            at_most=2.2,
            note=f"{median(through):.2f} ms / {median(at_once):.2f} ms",
            details={"routed_ms": [spread(run) for run in routed], "standalone_ms": [spread(run) for run in direct]},
        )
    ]


def _run(clients: list[Client], node: Node, run: str, count: int) -> list[list[float]]:
    """Give the samples of each client, in milliseconds; what was created is gone again."""
    samples: list[list[float]] = [[] for _ in clients]
    made: list[list[str]] = [[] for _ in clients]
    segments = {TOPOLOGY_KEY: node.name}
    for number in range(count):
        for client, found, ids in zip(clients, samples, made, strict=True):
            name = f"bench-{run}-{number}"
            found.append(timed_ms(lambda client=client, ids=ids, name=name: _create(client, ids, name, segments)))  # type: ignore[misc] # defaults are for the loop
    for client, ids in zip(clients, made, strict=True):
        for volume_id in ids:
            client.delete(volume_id)
    _await_erased(node)
    return samples


def _create(client: Client, ids: list[str], name: str, segments: dict[str, str]) -> None:
    ids.append(client.create(name, segments, **ANY_SIZE).volume_id)


def _await_erased(node: Node) -> None:
    disk = root(node) / _DISK.path.relative_to("/")
    trashes = [place / ".csi-local-path/trash" for place in (disk, disk / _NAME)]
    end = time.monotonic() + _ERASE_S
    while any(any(trash.iterdir()) for trash in trashes):
        assert time.monotonic() < end, "what was deleted is not erased"
        time.sleep(0.1)


@contextmanager
def standalone(kube: Kube, node: Node) -> Iterator[Object]:
    """Run the driver's image in role standalone, with a pool on the node's first disk, beside the agent's."""
    settings = {
        "enforce": "besteffort",
        "targetRoots": ["/run"],
        "pools": [{"name": _DISK.name, "path": "/pool", "init": "if-empty"}],
    }
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": _NAME}}
    kube.create({**config, "data": {"config.yaml": json.dumps(settings)}}, NAMESPACE)
    kube.create(_pod(node), NAMESPACE)
    try:
        yield kube.wait("Pod", _NAME, NAMESPACE, is_running)
    finally:
        kube.delete("Pod", _NAME, NAMESPACE, grace_s=0)
        kube.wait_gone("Pod", _NAME, NAMESPACE)
        kube.delete("ConfigMap", _NAME, NAMESPACE)


def _pod(node: Node) -> Object:
    driver = {
        "name": "driver",
        "image": tag(),
        "imagePullPolicy": "Never",
        "args": ["serve", "--role=standalone", "--config=/etc/csi-local-path/config.yaml", "--log-format=json"],
        "env": [{"name": "CSI_ENDPOINT", "value": "unix:///csi/csi.sock"}, {"name": "NODE_NAME", "value": node.name}],
        "securityContext": {"privileged": True},
        "volumeMounts": [
            {"name": "socket", "mountPath": "/csi"},
            {"name": "config", "mountPath": "/etc/csi-local-path"},
            {"name": "pool", "mountPath": "/pool"},
        ],
    }
    volumes = [
        {"name": "socket", "emptyDir": {}},
        {"name": "config", "configMap": {"name": _NAME}},
        {"name": "pool", "hostPath": {"path": str(Path(_DISK.path) / _NAME), "type": "DirectoryOrCreate"}},
    ]
    spec = {"nodeName": node.name, "containers": [driver], "volumes": volumes, **unhurried()}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": _NAME}, "spec": spec}
