"""Ephemeral volumes of pods through the socket, as the kubelet calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from csi.pb import csi_pb2
from tests.support.fakes import refusal
from tests.support.inline import Pod
from tests.support.served import Served, one_pool, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 2**20
CAPABILITY = csi_pb2.VolumeCapability(
    mount=csi_pb2.VolumeCapability.MountVolume(),
    access_mode=csi_pb2.VolumeCapability.AccessMode(mode=csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_MULTI_WRITER),
)


def config(tmp_path: Path, **ephemeral: Any) -> dict[str, Any]:
    return one_pool(tmp_path) | {"ephemeral": ephemeral}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(config(tmp_path, allow=True, maxSizePerVolume="8Mi", maxSizePerPod="8Mi"), tmp_path) as running:
        yield running


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


def request(pod: Pod, **attributes: str) -> csi_pb2.NodePublishVolumeRequest:
    """Give what the kubelet sends: what the pod says, and over it what the kubelet says (its podAttributes)."""
    target = pod.target()
    target.parent.mkdir(parents=True, exist_ok=True)
    of_pod = {"pod.name": pod.name, "pod.namespace": "default", "pod.uid": pod.uid, "serviceAccount.name": "default"}
    return csi_pb2.NodePublishVolumeRequest(
        volume_id=pod.volume_id(),
        target_path=str(target),
        volume_capability=CAPABILITY,
        volume_context={"csi.storage.k8s.io/ephemeral": "true"}
        | attributes
        | {f"csi.storage.k8s.io/{key}": value for key, value in of_pod.items()},
    )


def unpublish(server: Served, pod: Pod) -> None:
    server.node.NodeUnpublishVolume(
        csi_pb2.NodeUnpublishVolumeRequest(volume_id=pod.volume_id(), target_path=str(pod.target())), timeout=10
    )


def listed(server: Served) -> list[int]:
    answer = server.controller.ListVolumes(csi_pb2.ListVolumesRequest(), timeout=10)
    return [entry.volume.capacity_bytes for entry in answer.entries]


def test_the_life_of_one(server: Served, pod: Pod) -> None:
    for _ in range(2):
        server.node.NodePublishVolume(request(pod, size="4Mi"), timeout=10)
    assert listed(server) == [4 * MIB]
    (entry,) = server.controller.ListVolumes(csi_pb2.ListVolumesRequest(), timeout=10).entries
    assert dict(entry.volume.volume_context) == {"csi.storage.k8s.io/ephemeral": "true"}, "no claim is missing"
    (pod.target() / "file").write_text("hello")
    server.kill()
    server.start()
    server.node.NodePublishVolume(request(pod, size="4Mi"), timeout=10)
    stats = server.node.NodeGetVolumeStats(
        csi_pb2.NodeGetVolumeStatsRequest(volume_id=pod.volume_id(), volume_path=str(pod.target())), timeout=10
    )
    assert stats.usage[0].total == 4 * MIB
    health = server.node.NodeGetVolumeHealth(
        csi_pb2.NodeGetVolumeHealthRequest(volume_id=pod.volume_id(), volume_publish_path=str(pod.target())),
        timeout=10,
    )
    assert (health.volume_health.volume_id, list(health.volume_health.health_statuses)) == (pod.volume_id(), [])
    for _ in range(2):
        unpublish(server, pod)
        assert (listed(server), pod.target().exists()) == ([], False)


def test_whatever_else_a_pod_says_is_left_alone(server: Served, pod: Pod) -> None:
    hostile = {"pool": "other", "mode": "4777", "uid": "0", "path": "/etc", "csi.storage.k8s.io/pvc/name": "x"}
    server.node.NodePublishVolume(request(pod, **hostile), timeout=10)
    assert listed(server) == [8 * MIB]
    assert pod.target().stat().st_mode & 0o7777 == 0o777
    unpublish(server, pod)


@pytest.mark.parametrize(
    ("attributes", "code", "said"),
    [
        ({"size": "9Mi"}, grpc.StatusCode.INVALID_ARGUMENT, "ephemeral.maxSizePerVolume"),
        ({"size": "large"}, grpc.StatusCode.INVALID_ARGUMENT, "volume attribute 'size'"),
        ({"csi.storage.k8s.io/ephemeral": "false"}, grpc.StatusCode.FAILED_PRECONDITION, "staging_target_path"),
        ({"csi.storage.k8s.io/ephemeral": "TRUE"}, grpc.StatusCode.FAILED_PRECONDITION, "staging_target_path"),
    ],
)
def test_refusals_say_why(
    server: Served, pod: Pod, attributes: dict[str, str], code: grpc.StatusCode, said: str
) -> None:
    refused = refusal(lambda asked: server.node.NodePublishVolume(asked, timeout=10), request(pod, **attributes))
    assert (refused.code, said in refused.message) == (code, True), refused
    assert listed(server) == []


def test_they_are_off_by_default(tmp_path: Path, pod: Pod) -> None:
    with served(one_pool(tmp_path), tmp_path) as server:
        refused = refusal(lambda asked: server.node.NodePublishVolume(asked, timeout=10), request(pod))
        assert refused.code is grpc.StatusCode.FAILED_PRECONDITION
        assert "ephemeral.allow" in refused.message


def test_the_controller_does_not_delete_one(server: Served, pod: Pod) -> None:
    server.node.NodePublishVolume(request(pod), timeout=10)
    answer = server.controller.ListVolumes(csi_pb2.ListVolumesRequest(), timeout=10)
    (volume_id,) = [entry.volume.volume_id for entry in answer.entries]
    delete = csi_pb2.DeleteVolumeRequest(volume_id=volume_id)
    refused = refusal(lambda asked: server.controller.DeleteVolume(asked, timeout=10), delete)
    assert (refused.code, "ends with pod default/web-0" in refused.message) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        True,
    )
    unpublish(server, pod)
