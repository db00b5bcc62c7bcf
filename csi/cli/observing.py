"""HTTP beside the gRPC server, where it is asked for."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from csi.server.metrics import Metrics

log = structlog.get_logger()

_SCAN = "the first scan has not ended"
_AWAITED = {"controller": "the Leases of the cluster were not read yet, or this controller holds no slot"}


@contextmanager
def observed(role: str, host: str, port: int, ready: Callable[[], bool]) -> Iterator[Metrics | None]:
    """Serve /healthz, /readyz and /metrics meanwhile; port 0: serve none, and load nothing for it.

    To be entered first, so that a liveness probe is answered while the pools are waited for. EndpointError where
    the port cannot be had.
    """
    if not port:
        yield None
        return
    from csi.server.http import HttpServer, pages  # noqa: PLC0415 - memory
    from csi.server.metrics import Metrics  # noqa: PLC0415 - likewise

    metrics = Metrics(role)
    server = HttpServer(host, port, pages(ready, metrics, _AWAITED.get(role, _SCAN)))
    server.start()
    log.info("serving http", host=host or "all addresses", port=server.port)
    try:
        yield metrics
    finally:
        server.stop()
