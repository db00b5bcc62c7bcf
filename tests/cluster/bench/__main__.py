"""`python -m tests.cluster.bench`: the table of the driver in a cluster, which must run; printed, and as JSON."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from csi.cluster.api import KubernetesApi
from tests.bench.extent import scaled
from tests.bench.report import measured, write_report
from tests.bench.table import Row, all_good, render
from tests.cluster.bench.claims import claims
from tests.cluster.bench.extent import Extent
from tests.cluster.bench.memory import memory
from tests.cluster.bench.pods import starting
from tests.cluster.bench.routed import creating
from tests.cluster.bench.routing import listing, routing
from tests.cluster.bench.world import World
from tests.cluster.driver import wait_ready
from tests.cluster.kube import Kube
from tests.cluster.lab.install import install
from tests.cluster.lab.places import enter_network
from tests.cluster.lab.site import ADMIN, HUB

# Memory when calls of all kinds were answered, and before thousands of volumes are made.
PARTS: dict[str, Callable[[World], list[Row]]] = {
    "claims": claims,
    "pods": starting,
    "create": creating,
    "memory": memory,
    "routing": routing,
    "list": listing,
}
REPORT = Path("build/bench-cluster.json")
# What the tests' installation sets to be tested sooner, as the chart has it.
_AS_SHIPPED = (
    "provisioner.capacity.pollInterval=1m",
    "controller.settings.nodeDownRescheduleSeconds=300",
    "controller.settings.nodeGoneGraceSeconds=3600",
)


def main() -> int:
    """Run; exit status 1 if a row misses its limit, or could not be measured."""
    options = _options()
    extent = scaled(Extent(), options.scale, at_least=5)
    enter_network(HUB)
    os.environ["KUBECONFIG"] = str(ADMIN)
    install(*(f"--set={value}" for value in _AS_SHIPPED))
    kube = Kube()
    try:
        wait_ready(kube)
        world = World(kube, KubernetesApi(), extent)
        rows: list[Row] = []
        for name, measure in PARTS.items():
            if not options.only or name in options.only:
                rows += measured(name, partial(measure, world))
    finally:
        kube.close()
    print(render(rows))
    write_report(options.json, rows, scale=options.scale)
    return int(not all_good(rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.bench", description=__doc__)
    parser.add_argument("--json", type=Path, default=REPORT, help="file for the figures [%(default)s]")
    parser.add_argument("--only", action="append", choices=sorted(PARTS), help="run this part alone; repeatable")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full extent, to try the bench itself")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
