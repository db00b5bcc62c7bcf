"""Resident memory of the driver's processes, in its image, after all that was asked of them before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.bench.process import resident_bytes
from tests.bench.table import Row
from tests.cluster.bench.world import World, pid_of
from tests.cluster.driver import AGENTS, CONTROLLERS
from tests.cluster.lab.site import NAMESPACE, nodes

MB = 1e6


def memory(world: World) -> list[Row]:
    """Take the largest agent and the largest controller."""
    what = {
        "memory-agent": (AGENTS, "resident memory of a node agent", 92),
        "memory-controller": (CONTROLLERS, f"resident memory of a controller with {len(nodes())} nodes", 104),
    }
    rows = []
    for name, (selector, measure, at_most) in what.items():
        pids = [pid_of(pod) for pod in world.kube.list("Pod", NAMESPACE, selector)]
        found = [resident_bytes(pid) / MB for pid in pids]
        note = ", ".join(f"{one:.1f}" for one in sorted(found))
        rows.append(Row(name, measure, max(found), "MB", at_most, note, _parts(pids)))
    return rows


def _parts(pids: list[int]) -> dict[str, Any]:
    """Say of what memory consists: RssAnon, RssFile and RssShmem of proc(5), in kB."""
    parts: dict[str, Any] = {}
    for pid in pids:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        parts[str(pid)] = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Rss")}
    return parts
