"""The roles of a cluster as processes: what they need, and that a node needs no API server.

With one, they meet in tests/cluster/policies/test_meeting.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest

from csi.pb import csi_pb2
from tests.grpc.test_http import free_port, get
from tests.grpc.test_serve import run_serve, write_config
from tests.support.clustered import eventually
from tests.support.fakes import refusal
from tests.support.served import one_pool, served

if TYPE_CHECKING:
    from pathlib import Path

ENVIRON = {
    "POD_NAME": "p-1",
    "POD_NAMESPACE": "default",
    "NODE_NAME": "n-1",
    "POD_IP": "127.0.0.1",
    "KUBECONFIG": "/dev/null",
}
NODE = ("--role", "node", "--listen-port", "0", "--http-port", "0")
CONTROLLER = ("--role", "controller", "--http-port", "0")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    for key, value in ENVIRON.items():
        monkeypatch.setenv(key, value)


@pytest.mark.parametrize(
    ("role", "environ", "sentence"),
    [
        ("node", {"POD_IP": ""}, "POD_IP: wanted in the environment"),
        ("node", {"NODE_NAME": ""}, "NODE_NAME: wanted in the environment"),
        ("node", {"NODE_NAME": "n" * 249}, "NODE_NAME: wanted at most 248 characters"),
        ("controller", {"POD_NAME": ""}, "POD_NAME: wanted in the environment"),
    ],
)
def test_what_a_role_lacks_is_said(tmp_path: Path, role: str, environ: dict[str, str], sentence: str) -> None:
    config = write_config(tmp_path, one_pool(tmp_path))
    ended = run_serve("--role", role, "--config", config, "--endpoint", f"{tmp_path}/csi.sock", environ=environ)
    assert ended.returncode == 2
    assert sentence in ended.stderr


def test_a_node_is_called_as_its_cluster_calls_it(tmp_path: Path) -> None:
    config = write_config(tmp_path, {**one_pool(tmp_path), "nodeId": "other"})
    ended = run_serve("--role", "node", "--config", config, "--endpoint", f"{tmp_path}/csi.sock")
    assert ended.returncode == 2
    assert "role node takes it from NODE_NAME ('n-1'), found 'other'" in ended.stderr


def test_a_node_serves_its_kubelet_without_an_api_server(tmp_path: Path) -> None:
    with served(one_pool(tmp_path), tmp_path, options=NODE) as node:
        assert node.node.NodeGetInfo(csi_pb2.NodeGetInfoRequest()).node_id == "n-1"
        assert refusal(node.controller.ListVolumes, csi_pb2.ListVolumesRequest()).code is grpc.StatusCode.UNIMPLEMENTED
        eventually(lambda: "lease not written" in node.log_text())
        assert node.stop() == 0
        assert "Traceback" not in node.log_text()


def test_pools_are_those_of_the_node(tmp_path: Path) -> None:
    settings = one_pool(tmp_path)
    config = {"targetRoots": settings["targetRoots"], "nodes": [{"match": "n-*", "pools": settings["pools"]}]}
    with served(config, tmp_path, options=NODE) as node:
        assert node.node.NodeGetInfo(csi_pb2.NodeGetInfoRequest()).node_id == "n-1"
    assert (tmp_path / "pool/.csi-local-path/pool.json").exists()


def test_a_controller_without_an_api_server_is_not_ready_and_waits(tmp_path: Path) -> None:
    with served({}, tmp_path, options=CONTROLLER, start=False) as controller:
        controller.launch()
        eventually(lambda: "serving" in controller.log_text())
        assert not controller.identity.Probe(csi_pb2.ProbeRequest(), wait_for_ready=True).ready.value
        caught = refusal(controller.controller.ListVolumes, csi_pb2.ListVolumesRequest())
        assert caught.code is grpc.StatusCode.UNAVAILABLE
        assert "still reading who is in the cluster" in caught.message
        assert controller.stop() == 0


def test_a_controller_without_an_api_server_lives_and_says_what_it_waits_for(tmp_path: Path) -> None:
    port = free_port()
    with served({}, tmp_path, options=("--role", "controller", "--http-port", str(port)), start=False) as controller:
        controller.launch()
        eventually(lambda: "serving http" in controller.log_text())
        assert get(port, "/healthz") == (200, "ok\n")
        waits = "not ready: the Leases of the cluster were not read yet, or this controller holds no slot\n"
        assert get(port, "/readyz") == (503, waits)
        assert controller.stop() == 0
