"""The one place where a server is put together, started, and taken down again."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING

import structlog

from csi.cli.lean import settle
from csi.cli.observing import observed
from csi.cli.roles import Options, role_of
from csi.node_id import NodeIdError
from csi.server.sockets import EndpointError, claim_socket, parse_endpoint
from csi.surroundings import SurroundingsError
from provisioner.errors import ProvisionerError
from provisioner.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    import grpc

    from csi.cli.roles import Role
    from csi.server.interceptor import Observe

log = structlog.get_logger()

EXIT_OK, EXIT_FAILED, EXIT_CONFIG = 0, 1, 2


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
        parse_endpoint(options.endpoint)
        role = role_of(options)
    except (SettingsError, NodeIdError, EndpointError, SurroundingsError) as error:
        return _refused(error, EXIT_CONFIG)
    try:
        _serve(options, role, stops)
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


def _serve(options: Options, role: Role, stops: Stops) -> None:
    with observed(options.role, options.http_host, options.http_port, lambda: role.ready) as metrics:
        if metrics:
            for source in role.sources:
                metrics.add(source)
        _serve_role(options, role, stops, metrics.observe if metrics else None)
    log.info("stopped")


def _serve_role(options: Options, role: Role, stops: Stops, observe: Observe | None) -> None:
    try:
        with stops.interrupting():
            servers = role.prepare(observe)
        socket = claim_socket(options.endpoint, servers[0].add_insecure_port)
        try:
            servers[0].start()
            log.info("serving", role=options.role, endpoint=f"unix://{socket.path}", node_id=role.name)
            role.start()
            settle()
            log.info("ready")
            log.info("stopping", signal=stops.asked.get(), grace_s=options.grace_s)
        finally:
            socket.withdraw()
            _drain(servers, options.grace_s, stops)
    finally:
        role.stop()


def _drain(servers: Sequence[grpc.Server], grace_s: float, stops: Stops) -> None:
    """Let running calls finish and none start; another signal cancels those that still run."""
    stopped = [server.stop(grace_s) for server in servers]

    def tell() -> None:
        for each in stopped:
            each.wait()
        stops.asked.put(None)

    threading.Thread(target=tell, name="drain", daemon=True).start()
    while (again := stops.asked.get()) is not None:
        log.info("cancelling running calls", signal=again)
        for server in servers:
            server.stop(0)
