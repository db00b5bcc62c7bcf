"""How long a start takes with many volumes; our own server only."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.figures import p50, spread
from tests.bench.process import server_pid
from tests.bench.table import Row

if TYPE_CHECKING:
    from tests.bench.extent import Extent
    from tests.bench.site import OwnSite
    from tests.bench.target import Target
    from tests.support.served import Served

REPEATS = 3
TIMEOUT_S = 60.0
_POLL_S = 0.005


def starting(site: OwnSite, extent: Extent) -> list[Row]:
    """Start warm and cold in turns."""
    with site.serving("many") as target:
        target.populate(extent.many)
    warm, cold = [], []
    for _ in range(REPEATS):
        warm.append(_start(site))
        _drop_caches()
        cold.append(_start(site))
    measure = f"start with {extent.many:,} volumes until Probe is ready, {{}}"
    return [
        Row("start-warm", measure.format("warm"), p50(warm), "s", 2, details={"samples_s": spread(warm)}),
        Row("start-cold", measure.format("after drop_caches"), p50(cold), "s", 4, details={"samples_s": spread(cold)}),
    ]


def _start(site: OwnSite) -> float:
    with site.prepared("many") as (server, target):
        began = time.monotonic()
        server.launch()
        _wait_ready(server, target, began + TIMEOUT_S)
        took = time.monotonic() - began
        target.rest()
    return took


def _wait_ready(server: Served, target: Target, end: float) -> None:
    """Dial only once the socket listens: gRPC's own back-off would be part of the figure."""
    while not _listens(server.endpoint):
        if server.process.poll() is not None or time.monotonic() > end:
            raise TimeoutError(f"the server does not listen:\n{server.log_text()[-2000:]}")
        time.sleep(_POLL_S)
    client = target.client()
    while not client.probe():
        if time.monotonic() > end:
            raise TimeoutError("the server listens, and is not ready")
        time.sleep(_POLL_S)
    client.close()


def _listens(endpoint: str) -> bool:
    try:
        server_pid(endpoint)
    except OSError:
        return False
    return True


def _drop_caches() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")
