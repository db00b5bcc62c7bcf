"""`/healthz`, `/readyz` and `/metrics` over HTTP, for the kubelet's probes and for Prometheus.

Anybody on the network may connect, so what a connection can cost is bounded: one short request each, a few
seconds, and never so many at once that a probe finds no room.
"""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from csi.server.sockets import EndpointError

if TYPE_CHECKING:
    from csi.server.metrics import Metrics

log = structlog.get_logger()

_MOST_CONNECTIONS = 64
_LONGEST_HEAD = 16 << 10  # bytes of the request line and all headers
_HEAD_WAIT_S = 5.0
_TEXT = "text/plain; charset=utf-8"


class Answer(NamedTuple):
    """What a page answers."""

    status: HTTPStatus
    content_type: str
    body: bytes


Page = Callable[[str], Answer]
"""Is given the request's Accept header."""


def pages(ready: Callable[[], bool], metrics: Metrics, awaited: str) -> Mapping[str, Page]:
    """Give the pages of a server. awaited: why it is not ready as long as it is not, in words.

    healthz says that this process answers, and asks nobody else: a dead disk, API or peer is not healed by a
    restart. readyz says that calls can be answered.
    """

    def show_ready(_accept: str) -> Answer:
        if ready():
            return Answer(HTTPStatus.OK, _TEXT, b"ready\n")
        return Answer(HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, f"not ready: {awaited}\n".encode())

    return {
        "/healthz": lambda _accept: Answer(HTTPStatus.OK, _TEXT, b"ok\n"),
        "/readyz": show_ready,
        "/metrics": lambda accept: Answer(HTTPStatus.OK, *metrics.page(accept)),
    }


class HttpServer(ThreadingMixIn, TCPServer):
    """Serves pages from `start` to `stop`."""

    daemon_threads = True  # a page that waits must not keep the process alive
    block_on_close = False

    def __init__(self, host: str, port: int, shown: Mapping[str, Page]) -> None:
        """Listen; EndpointError where the port cannot be had. host: '' for all addresses, of both families."""
        self.pages = shown
        self._connections: dict[socket.socket, None] = {}  # the oldest first
        self._guard = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._stopping = False
        super().__init__((host, port), _Handler, bind_and_activate=False)
        self.socket.close()  # it was of one address family
        self.socket = _listen(host, port)
        self.server_address = self.socket.getsockname()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self.socket.getsockname()[1]
        return port

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._stopping = True
        if self._thread.is_alive():
            self.socket.shutdown(socket.SHUT_RDWR)  # wakes it
            self._thread.join()
        self.server_close()

    def _run(self) -> None:
        """Answer until the end; the library's own loop would wake twice a second to look for it."""
        while not self._stopping:
            self.handle_request()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread; who came first goes where there are too many, for probes are quick."""
        with self._guard:
            if len(self._connections) >= _MOST_CONNECTIONS:
                oldest = next(iter(self._connections))
                del self._connections[oldest]
                _hang_up(oldest)
            self._connections[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        with self._guard:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the library's signature
        """Log what went wrong in a page; a client that hangs up is nobody's mistake."""
        log.debug("http request failed", exc_info=True)  # noqa: LOG014 - called from an except clause


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)  # its thread sees the end, and closes it
    except OSError:
        return


def _listen(host: str, port: int) -> socket.socket:
    try:
        if not host and socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        where = f"{host or 'all addresses'}, port {port}"
        why = (error.strerror or str(error)).partition(" (")[0]  # Python repeats the address there
        raise EndpointError(
            f"http: cannot listen at {where}: {why}; choose another --http-port, or 0 for none"
        ) from error


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: HttpServer
    server_version = "csi-local-path"
    sys_version = ""

    def setup(self) -> None:
        """Read the head of the request, within its bounds of size and time."""
        super().setup()
        self.rfile = io.BufferedReader(io.BytesIO(_head(self.connection)))

    def do_GET(self) -> None:
        """Answer with a page."""
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            known = ", ".join(self.server.pages)
            self._send(Answer(HTTPStatus.NOT_FOUND, _TEXT, f"not found; there is {known}\n".encode()))
        else:
            self._send(page(self.headers.get("Accept", "")))

    do_HEAD = do_GET  # noqa: N815 - likewise

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def log_message(self, *_: object) -> None:
        """Say nothing: probes come every few seconds."""


def _head(connection: socket.socket) -> bytes:
    """Receive up to the empty line; what is cut short is refused by the parser."""
    end, head = time.monotonic() + _HEAD_WAIT_S, b""
    while b"\r\n\r\n" not in head and len(head) < _LONGEST_HEAD:
        connection.settimeout(max(0.001, end - time.monotonic()))
        chunk = connection.recv(4096)
        if not chunk:
            break
        head += chunk
    connection.settimeout(_HEAD_WAIT_S)  # for the answer
    return head
