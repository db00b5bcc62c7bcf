"""Claims: from made to bound, with the driver and with one that does nothing."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter

from tests.bench.figures import spread
from tests.bench.table import Row
from tests.cluster.bench import peer
from tests.cluster.bench.clock import Clock
from tests.cluster.bench.world import World
from tests.cluster.kube import is_bound
from tests.cluster.lab.site import nodes
from tests.cluster.manifests import CLASS, claim
from tests.cluster.scene import Scene

_CALLERS = 10
_LONG_S = 120.0


@dataclass
class Side:
    """A driver by its class, and its samples."""

    storage_class: str
    scene: Scene
    clock: Clock
    one_ms: list[float] = field(default_factory=list)
    per_s: list[float] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def manifest(self) -> dict[str, object]:
        """Give a new claim for the node whose turn it is."""
        number = next(self._numbers)
        node = nodes()[number % len(nodes())].name
        return claim(f"{self.storage_class}-{number}", "1Mi", self.storage_class, node=node)

    def bind_one(self) -> None:
        """Take one sample of a claim alone."""
        self.one_ms.append(self.clock.took_s(self.manifest()) * 1000)

    def burst(self, count: int) -> None:
        """Take one sample of many claims at once, from the first that is made to the last that is bound."""
        manifests = [self.manifest() for _ in range(count)]
        began = perf_counter()
        with ThreadPoolExecutor(_CALLERS) as pool:
            list(pool.map(self.clock.create, manifests))
        ended = max(self.clock.wait(str(one["metadata"]["name"])) for one in manifests)  # type: ignore[index] # an object
        self.per_s.append(count / (ended - began))

    def sweep(self) -> None:
        """Remove all claims and their volumes."""
        kube, namespace = self.scene.kube, self.scene.namespace
        volumes = [volume["metadata"]["name"] for volume in self.scene.volumes()]
        for one in kube.list("PersistentVolumeClaim", namespace):
            kube.delete("PersistentVolumeClaim", one["metadata"]["name"], namespace)
        for name in volumes:
            kube.wait_gone("PersistentVolume", name, patience_s=_LONG_S)


def claims(world: World) -> list[Row]:
    """Bind claims of both drivers in turns: one at a time, then many at once."""
    with peer.peer(world.kube), world.scene() as scene:
        path = f"/api/v1/namespaces/{scene.namespace}/persistentvolumeclaims"
        clock = Clock(world.api, path, is_bound)
        sides = [Side(name, scene, clock) for name in (CLASS, peer.CLASS)]
        for side in sides:  # who leads, and what is cached, is settled by these
            side.burst(_CALLERS)
            side.per_s.clear()
            side.sweep()
        for _ in range(world.extent.rounds):
            for _ in range(world.extent.claims // world.extent.rounds):
                for side in sides:
                    side.bind_one()
            sides[0].sweep()
        for _ in range(world.extent.rounds):
            for side in sides:
                side.burst(world.extent.burst)
                side.sweep()
    ours, nothing = sides
    return [_one(ours, nothing), *_burst(ours, nothing, world.extent.burst)]


def _one(ours: Side, nothing: Side) -> Row:
    measure = "PVC to Bound, one at a time / do-nothing driver"
    return Row.ratio("bind", measure, ours.one_ms, nothing.one_ms, at_most=1.5)


def _burst(ours: Side, nothing: Side, count: int) -> list[Row]:
    rate, most = median(ours.per_s), median(nothing.per_s)
    details = {"ours_per_s": spread(ours.per_s), "nothing_per_s": spread(nothing.per_s)}
    note = f"{rate:.1f} per s / {most:.1f} per s"
    measure = f"burst of {count} PVCs, bound per s"
    return [
        Row("burst", f"{measure} / do-nothing driver", rate / most, at_least=0.7, note=note, details=details),
        Row("burst-rate", measure, rate, "per s", at_least=20),
    ]
