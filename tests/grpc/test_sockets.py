"""The socket: claimed from nobody who lives, private from its first moment, removed only while ours."""

from __future__ import annotations

import os
import socket
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from csi.server.sockets import ClaimedSocket, EndpointError, claim_socket, parse_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextmanager
def serving(path: Path) -> Iterator[ClaimedSocket]:
    """Serve nothing, but by a real server, at `path`."""
    server = grpc.server(ThreadPoolExecutor(1))
    try:
        claimed = claim_socket(str(path), server.add_insecure_port)
        server.start()
        yield claimed
    finally:
        server.stop(0).wait()


def answers(path: Path) -> bool:
    """Tell whether a gRPC server answers there, if only that it knows no such method."""
    with grpc.insecure_channel(f"unix://{path}", (("grpc.use_local_subchannel_pool", 1),)) as channel:
        call: Any = channel.unary_unary("/none/None")
        try:
            call(b"", timeout=5)
        except grpc.RpcError as error:
            failed: Any = error  # it is a Call as well
            return failed.code() is grpc.StatusCode.UNIMPLEMENTED
    return False


def make_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        ("unix:///run/csi/csi.sock", "/run/csi/csi.sock"),
        ("unix:/run/csi/csi.sock", "/run/csi/csi.sock"),
        ("/run/csi/csi.sock", "/run/csi/csi.sock"),
        ("unix:///a b%20c.sock", "/a b%20c.sock"),
    ],
)
def test_an_endpoint_is_a_path_with_or_without_scheme(endpoint: str, path: str) -> None:
    assert str(parse_endpoint(endpoint)) == path


@pytest.mark.parametrize(
    ("endpoint", "sentence"),
    [
        ("", "wanted unix:///path/to/csi.sock, found ''"),
        ("csi.sock", "wanted unix:///path/to/csi.sock"),
        ("unix://csi.sock", "wanted unix:///path/to/csi.sock"),
        ("tcp://0.0.0.0:1", "wanted unix:///path/to/csi.sock"),
        ("/run/a\0.sock", "wanted unix:///path/to/csi.sock"),
        ("/run/csi", "ends in .sock"),
        ("/run/.sock", "ends in .sock"),
        ("/run/csi.sock/", "ends in .sock"),
        (f"/{'a' * 102}.sock", "wanted a path of at most 107 bytes, found 108"),
        (f"/{'ä' * 60}.sock", "found 126"),
    ],
)
def test_any_other_endpoint_is_refused_with_a_sentence(endpoint: str, sentence: str) -> None:
    with pytest.raises(EndpointError) as caught:
        parse_endpoint(endpoint)
    assert sentence in str(caught.value)


def test_only_root_may_connect_from_the_first_moment(tmp_path: Path) -> None:
    modes: list[int] = []

    def bind(address: str) -> int:
        port = server.add_insecure_port(address)
        modes.append(stat.S_IMODE((tmp_path / "csi.sock").stat().st_mode))
        return port

    server, umask = grpc.server(ThreadPoolExecutor(1)), os.umask(0)
    os.umask(umask)
    claim_socket(str(tmp_path / "csi.sock"), bind)
    server.stop(0).wait()
    assert modes == [0o600]
    assert os.umask(umask) == umask


@pytest.mark.parametrize("name", ["csi.sock", "a b%20#?ä.sock"])
def test_it_answers_at_its_path_and_is_gone_when_withdrawn(tmp_path: Path, name: str) -> None:
    with serving(tmp_path / name) as claimed:
        assert os.listdir(tmp_path) == [name]  # a plugin makes no other file beside its socket
        assert name != "csi.sock" or answers(tmp_path / name)
        claimed.withdraw()
        assert os.listdir(tmp_path) == []


def test_the_longest_path_is_served(tmp_path: Path) -> None:
    path = tmp_path / f"{'a' * (107 - len(bytes(tmp_path)) - len('/.sock'))}.sock"
    with serving(path):
        assert answers(path)


def test_the_folder_is_made_private_if_its_parent_is_there(tmp_path: Path) -> None:
    with serving(tmp_path / "made" / "csi.sock"):
        assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o700
    with pytest.raises(EndpointError, match="wanted a directory for the socket: No such file or directory"):
        claim_socket(str(tmp_path / "no" / "such" / "csi.sock"), lambda _: 1)


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    make_stale(tmp_path / "csi.sock")
    with serving(tmp_path / "csi.sock"):
        assert answers(tmp_path / "csi.sock")


def test_a_live_socket_is_left_to_its_owner_who_is_named(tmp_path: Path) -> None:
    path = tmp_path / "csi.sock"
    with serving(path):
        with pytest.raises(EndpointError, match=rf"another process listens on this socket \(pid {os.getpid()}\)"):
            claim_socket(str(path), lambda _: pytest.fail("bound over a live socket"))
        assert answers(path)


def test_a_socket_with_a_full_queue_is_alive(tmp_path: Path) -> None:
    path = tmp_path / "csi.sock"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with pytest.raises(EndpointError, match="another process uses this socket"):
            claim_socket(str(path), lambda _: pytest.fail("bound over a live socket"))
    assert path.exists()


def test_a_socket_of_another_type_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "csi.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(EndpointError, match="another process uses this socket"):
            claim_socket(str(path), lambda _: pytest.fail("bound over a live socket"))
    assert path.exists()


@pytest.mark.parametrize("kind", ["a directory", "a file", "a symbolic link", "something else"])
def test_what_is_no_socket_is_never_removed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "csi.sock"
    make_stale(tmp_path / "stale.sock")
    make: dict[str, Callable[[], None]] = {
        "a directory": path.mkdir,
        "a file": path.touch,
        "a symbolic link": lambda: path.symlink_to("stale.sock"),
        "something else": lambda: os.mkfifo(path),
    }
    make[kind]()
    with pytest.raises(EndpointError, match=f"wanted a socket or nothing, found {kind}; it is left alone"):
        claim_socket(str(path), lambda _: pytest.fail("bound over it"))
    assert os.path.lexists(path)


def test_neither_withdraw_nor_grpc_s_stop_takes_a_later_socket(tmp_path: Path) -> None:
    path = tmp_path / "csi.sock"
    with serving(path) as claimed:
        path.unlink()
        make_stale(path)
        theirs = path.stat().st_ino
        claimed.withdraw()
        assert path.stat().st_ino == theirs
    assert path.stat().st_ino == theirs


def test_withdrawing_twice_or_without_a_folder_is_nothing(tmp_path: Path) -> None:
    with serving(tmp_path / "made" / "csi.sock") as claimed:
        claimed.withdraw()
        claimed.withdraw()
        (tmp_path / "made").rmdir()
        claimed.withdraw()


def test_of_many_that_come_at_once_one_gets_the_socket(tmp_path: Path) -> None:
    path, start = tmp_path / "csi.sock", threading.Barrier(8)
    make_stale(path)
    servers = [grpc.server(ThreadPoolExecutor(1)) for _ in range(8)]

    def claim(server: grpc.Server) -> grpc.Server | None:
        start.wait()
        try:
            claim_socket(str(path), server.add_insecure_port)
        except EndpointError:
            return None
        return server

    with ThreadPoolExecutor(8) as claimants:
        won = [server for server in claimants.map(claim, servers) if server]
    try:
        assert len(won) == 1
        won[0].start()
        assert answers(path)
    finally:
        for server in servers:
            server.stop(0).wait()


def test_a_failing_bind_is_told_with_its_path(tmp_path: Path) -> None:
    def bind(_: str) -> int:
        raise RuntimeError("no port for you")

    with pytest.raises(EndpointError, match=r"csi.sock: cannot be bound: no port for you"):
        claim_socket(str(tmp_path / "csi.sock"), bind)
