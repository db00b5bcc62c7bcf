"""The roles of a cluster as processes find each other at a real kube-apiserver, and again after the node's death."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from csi.pb import csi_pb2
from tests.grpc.test_roles import CONTROLLER, ENVIRON, NODE
from tests.support.apiserver import apiserver
from tests.support.clustered import eventually
from tests.support.fakes import refusal
from tests.support.served import one_pool, served

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def creation(name: str) -> csi_pb2.CreateVolumeRequest:
    mode = csi_pb2.VolumeCapability.AccessMode(mode=csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER)
    mount = csi_pb2.VolumeCapability(mount=csi_pb2.VolumeCapability.MountVolume(), access_mode=mode)
    return csi_pb2.CreateVolumeRequest(
        name=name, volume_capabilities=[mount], capacity_range=csi_pb2.CapacityRange(required_bytes=2**20)
    )


def test_node_and_controller_meet_at_a_real_api_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.mkdir()
    b.mkdir()
    with apiserver() as kubeconfig:
        for key, value in {**ENVIRON, "KUBECONFIG": str(kubeconfig)}.items():
            monkeypatch.setenv(key, value)
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        with served(one_pool(a), a, options=NODE) as node, served({}, b, options=CONTROLLER) as controller:
            made: list[Any] = []

            def make() -> bool:
                try:
                    made.append(controller.controller.CreateVolume(creation("pvc-1")).volume)
                except grpc.RpcError:
                    return False  # the node does not know the controller yet
                return True

            eventually(make)
            assert made[0].volume_id.endswith(".pvc-1")
            assert (a / "pool/.csi-local-path/volumes/pvc-1").exists()
            node.kill()
            request = csi_pb2.ControllerGetVolumeRequest(volume_id=made[0].volume_id)
            assert refusal(controller.controller.ControllerGetVolume, request).code is grpc.StatusCode.UNAVAILABLE
            node.start()

            def found() -> bool:
                try:
                    return bool(controller.controller.ControllerGetVolume(request).volume.volume_id)
                except grpc.RpcError:
                    return False

            eventually(found)
