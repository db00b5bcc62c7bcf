"""HTTP beside the socket: probes and metrics of a running server, and what strangers can do to it."""

from __future__ import annotations

import http.client
import os
import socket
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

import grpc
import pytest

from csi.pb import csi_pb2
from csi.server.http import Answer, HttpServer, pages
from csi.server.metrics import Metrics
from csi.server.sockets import EndpointError
from tests.support.served import Served, one_pool, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    """Give status and body of a page."""
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@contextmanager
def serving(host: str = "127.0.0.1", *, ready: bool = True) -> Iterator[int]:
    """Serve the pages of a server that is ready, or not, in this process; gives the port."""
    server = HttpServer(host, 0, pages(lambda: ready, Metrics("node"), "so far"))
    server.start()
    try:
        yield server.port
    finally:
        server.stop()


@pytest.fixture
def port() -> Iterator[int]:
    with serving() as found:
        yield found


@pytest.fixture
def real(tmp_path: Path) -> Iterator[tuple[Served, int]]:
    number = free_port()
    with served(one_pool(tmp_path), tmp_path, options=("--http-port", str(number))) as server:
        yield server, number


def test_a_server_tells_that_it_lives_and_is_ready(real: tuple[Served, int]) -> None:
    _, number = real
    assert get(number, "/healthz") == (200, "ok\n")
    assert get(number, "/readyz") == (200, "ready\n")
    assert get(number, "/elsewhere")[0] == 404


def test_metrics_count_the_calls_that_were_made(real: tuple[Served, int]) -> None:
    server, number = real
    with pytest.raises(grpc.RpcError):
        server.controller.ControllerGetVolume(csi_pb2.ControllerGetVolumeRequest(volume_id="x"), timeout=10)
    with pytest.raises(grpc.RpcError):
        server.channel.unary_unary("/csi.v1.Controller/NoSuch")(b"", timeout=10)  # type: ignore[arg-type] # its type is what a serializer would take
    _, text = get(number, "/metrics?any=query")
    assert 'csi_local_path_rpcs_total{code="NOT_FOUND",method="ControllerGetVolume"} 1.0' in text
    assert 'csi_local_path_rpcs_total{code="UNIMPLEMENTED",method="unknown"} 1.0' in text
    assert 'method="NoSuch"' not in text
    assert 'csi_local_path_pool_volumes{pool="default"} 0.0' in text
    assert 'csi_local_path_build_info{role="standalone"' in text


def test_it_lives_while_it_waits_for_a_pool_and_is_not_ready(real: tuple[Served, int], tmp_path: Path) -> None:
    first, _ = real
    second = tmp_path / "second"
    second.mkdir()
    number = free_port()
    config = one_pool(tmp_path) | {"lockWaitSeconds": 60}
    with served(config, second, options=("--http-port", str(number)), start=False) as waiting:
        waiting.launch()
        _until_connected(number)
        assert get(number, "/healthz")[0] == 200
        assert get(number, "/readyz") == (503, "not ready: the first scan has not ended\n")
        first.stop()
        waiting.wait_ready()
        assert get(number, "/readyz")[0] == 200


def _until_connected(number: int) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", number)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < end, "nobody listens"
            time.sleep(0.01)
        else:
            return


def test_no_readiness_before_the_first_scan() -> None:
    with serving(ready=False) as number:
        assert get(number, "/healthz")[0] == 200
        assert get(number, "/readyz") == (503, "not ready: so far\n")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_all_addresses_means_both_families(host: str) -> None:
    with serving("") as number:
        assert get(number, "/healthz", host)[0] == 200


def test_head_has_no_body(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("HEAD", "/healthz")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Content-Length"], answer.read()) == (200, "3", b"")
    connection.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_other_methods_are_refused(port: int, method: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, "/healthz")
    assert connection.getresponse().status == 501
    connection.close()


def test_idle_connections_never_keep_a_probe_out(port: int) -> None:
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert get(port, "/healthz")[0] == 200


def test_a_head_without_end_is_cut_off(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nX: " + b"y" * (20 << 10))
        with client.makefile("rb") as answer:
            assert answer.readline().split()[1] in (b"200", b"400", b"431")


def test_rubbish_is_refused_and_others_are_served(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(os.urandom(100) + b"\r\n\r\n")
        client.recv(4096)
    assert get(port, "/healthz")[0] == 200


def test_a_page_that_fails_or_waits_leaves_the_others_alone() -> None:
    def fail(_accept: str) -> Answer:
        raise RuntimeError("broken page")

    server = HttpServer("127.0.0.1", 0, {"/broken": fail, "/fine": lambda _: Answer(HTTPStatus.OK, "text/plain", b"x")})
    server.start()
    try:
        with pytest.raises((urllib.error.URLError, http.client.RemoteDisconnected, ConnectionResetError)):
            get(server.port, "/broken")
        assert get(server.port, "/fine") == (200, "x")
    finally:
        server.stop()


def test_a_port_in_use_is_refused_with_a_sentence(port: int) -> None:
    with pytest.raises(EndpointError, match=f"port {port}: Address already in use; choose another --http-port"):
        HttpServer("127.0.0.1", port, {})


def test_a_host_that_is_no_address_is_refused() -> None:
    with pytest.raises(EndpointError, match=r"cannot listen at 192\.0\.2\.1"):
        HttpServer("192.0.2.1", free_port(), {})
