"""Pods: from made to running, with a volume and with an emptyDir."""

from __future__ import annotations

from tests.bench.table import Row
from tests.cluster.bench.clock import Clock
from tests.cluster.bench.world import World
from tests.cluster.kube import Object
from tests.cluster.lab.site import nodes
from tests.cluster.manifests import MOUNT, container, pod

_SCRIPT = "exec sleep 100000"


def starting(world: World) -> list[Row]:
    """Start pods of both kinds in turns, on one node."""
    node = nodes()[0].name
    samples: dict[str, list[float]] = {"volume": [], "empty": []}
    with world.scene() as scene:
        scene.claim("data", "16Mi", node=node)
        scene.bound("data")
        clock = Clock(world.api, f"/api/v1/namespaces/{scene.namespace}/pods", is_running)
        for number in range(world.extent.pods):
            for kind, found in samples.items():
                name = f"{kind}-{number}"
                made = pod(name, "data", node=node) if kind == "volume" else _with_empty_dir(name, node)
                found.append(clock.took_s(made) * 1000)
                scene.end(name)
    return [
        Row.ratio(
            "pod",
            "pod start to Running with a bound volume / with an emptyDir",
            samples["volume"],
            samples["empty"],
            at_most=1.3,
        )
    ]


def is_running(found: Object) -> bool:
    """Tell whether a pod's containers run, as its node said."""
    return bool(found["status"].get("phase") == "Running")


def _with_empty_dir(name: str, node: str) -> Object:
    main = container(_SCRIPT, [{"name": "v0", "mountPath": MOUNT}])
    return pod(name, node=node, containers=[main], volumes=[{"name": "v0", "emptyDir": {}}])
