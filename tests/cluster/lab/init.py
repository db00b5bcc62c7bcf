"""`python -m tests.cluster.lab.init PLACE`: be the first process of a place."""

from __future__ import annotations

import sys

from tests.cluster.lab import hub, node
from tests.cluster.lab.site import HUB, nodes
from tests.cluster.lab.supervisor import Supervisor


def main(place: str) -> None:
    """Prepare the place, then keep its programs running."""
    if place == HUB:
        hub.prepare()
        Supervisor(place, hub.programs()).run()
    this = next(one for one in nodes() if one.name == place)
    node.prepare(this)
    Supervisor(place, node.programs(this)).run()


if __name__ == "__main__":
    main(sys.argv[1])
