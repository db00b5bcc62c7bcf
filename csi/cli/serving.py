"""The one place where a server is put together, started, and taken down again."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING

import structlog

from csi.cli.lean import settle
from csi.cli.observing import observed
from csi.config import load_settings
from csi.node_id import NodeIdError, node_id
from csi.server.figures import of_pools
from csi.server.server import build_server
from csi.server.sockets import EndpointError, claim_socket, parse_endpoint
from provisioner.assembly import Provisioner
from provisioner.errors import ProvisionerError
from provisioner.settings import Settings, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

    import grpc

    from csi.server.interceptor import Observe

log = structlog.get_logger()

EXIT_OK, EXIT_FAILED, EXIT_CONFIG = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says.

    grace_s: how long running calls may take once the end is asked for. http_port: 0 for none.
    """

    role: str
    config: Path
    endpoint: str
    node_id: str
    grace_s: float
    http_host: str
    http_port: int


class StopAskedError(Exception):
    """A signal came while nothing was served yet."""


class Stops:
    """SIGTERM and SIGINT, in the order of their coming. To be made in the main thread."""

    def __init__(self) -> None:
        self.asked: SimpleQueue[str | None] = SimpleQueue()
        self._raising = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Let a signal end what is done inside, by StopAskedError: for waits, where nothing is half done."""
        self._raising = True
        try:
            yield
        finally:
            self._raising = False

    def _note(self, number: int, _: FrameType | None) -> None:
        if self._raising:
            raise StopAskedError
        self.asked.put(signal.Signals(number).name)


def run(options: Options) -> int:
    """Serve until a signal; gives the exit status. Errors of the start are logged, not raised."""
    stops = Stops()
    try:
        settings = load_settings(options.config)
        name = node_id(options.node_id or settings.node_id)
        parse_endpoint(options.endpoint)
    except (SettingsError, NodeIdError, EndpointError) as error:
        return _refused(error, EXIT_CONFIG)
    try:
        _serve(options, settings, name, stops)
    except (ProvisionerError, EndpointError) as error:
        return _refused(error, EXIT_FAILED)
    except StopAskedError:
        log.info("stopped before anything was served")
    except Exception:
        log.exception("the server failed")
        return EXIT_FAILED
    return EXIT_OK


def _refused(error: Exception, status: int) -> int:
    """Log a sentence for people; a traceback would say nothing more."""
    log.error(str(error))
    return status


def _serve(options: Options, settings: Settings, name: str, stops: Stops) -> None:
    """Pools are locked before the socket is bound: who holds the pools is the server."""
    provisioner = Provisioner(settings)
    with observed(options.role, options.http_host, options.http_port, lambda: provisioner.volumes.ready) as metrics:
        if metrics:
            metrics.add(of_pools(provisioner.figures))
        _serve_pools(options, provisioner, name, stops, metrics.observe if metrics else None)
    log.info("stopped")


def _serve_pools(options: Options, provisioner: Provisioner, name: str, stops: Stops, observe: Observe | None) -> None:
    try:
        with stops.interrupting():
            provisioner.lock()
        server = build_server(provisioner, name, observe=observe)
        socket = claim_socket(options.endpoint, server.add_insecure_port)
        try:
            server.start()
            log.info("serving", role=options.role, endpoint=f"unix://{socket.path}", node_id=name)
            provisioner.start()
            settle()
            log.info("ready")
            log.info("stopping", signal=stops.asked.get(), grace_s=options.grace_s)
        finally:
            socket.withdraw()
            _drain(server, options.grace_s, stops)
    finally:
        provisioner.stop()


def _drain(server: grpc.Server, grace_s: float, stops: Stops) -> None:
    """Let running calls finish and none start; another signal cancels those that still run."""
    stopped = server.stop(grace_s)

    def tell() -> None:
        stopped.wait()
        stops.asked.put(None)

    threading.Thread(target=tell, name="drain", daemon=True).start()
    while (again := stops.asked.get()) is not None:
        log.info("cancelling running calls", signal=again)
        server.stop(0)
