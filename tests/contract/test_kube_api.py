"""The Kubernetes API in memory keeps the contract; tests/cluster/policies holds a real kube-apiserver to the same."""

from __future__ import annotations

import json
import os
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from csi.cluster import api as api_module
from csi.cluster.api import ApiError, KubernetesApi
from tests.support.kube_contract import KubeApiContract
from tests.support.kubeapi import MemoryApi

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def api() -> Iterator[MemoryApi]:
    memory = MemoryApi()
    yield memory
    memory.close()


class TestMemoryApi(KubeApiContract):
    """The fake that other tests use."""


def test_no_way_to_an_api_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", os.devnull)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ApiError, match="no way to the Kubernetes API is known"):
        KubernetesApi()


def test_a_server_that_falls_silent_is_an_error_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(api_module, "_READ_S", 0.2)
    monkeypatch.setattr(api_module, "_WATCH_READ_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=begin_a_watch_and_fall_silent, args=(server,), daemon=True).start()
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.getsockname()[1]}"}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        said = {
            "clusters": [cluster],
            "contexts": [context],
            "current-context": "c",
            "users": [{"name": "u", "user": {}}],
        }
        (tmp_path / "config").write_text(json.dumps(said))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        api = KubernetesApi()
        lines = api.watch("/apis/x", {})
        assert json.loads(next(lines)) == {"type": "ADDED"}
        with pytest.raises(ApiError, match="watch /apis/x"):
            next(lines)
        with pytest.raises(ApiError, match="GET /api"):
            api.get("/api")


def begin_a_watch_and_fall_silent(server: socket.socket) -> None:
    """Answer the first connection with one event of many, and no other with anything; all stay open."""
    held = []
    with suppress(OSError):
        while True:
            held.append(server.accept()[0])
            if len(held) == 1:
                event = b'{"type": "ADDED"}\n'
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                held[0].sendall(head + b"%x\r\n%s\r\n" % (len(event), event))
