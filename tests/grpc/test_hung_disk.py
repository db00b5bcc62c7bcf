"""A disk that hangs, as a frozen filesystem does: writers wait in the kernel until it is thawed."""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc
import pytest

from csi.pb import csi_pb2
from tests.support.filesystems import MIB, loop_filesystem
from tests.support.served import one_pool, served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.served import Served

CALLERS = 12
PATIENT_S = 60.0


@contextmanager
def frozen(folder: Path) -> Iterator[None]:
    subprocess.run(["fsfreeze", "--freeze", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(folder)], check=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with loop_filesystem("ext4", tmp_path, 64 * MIB) as disk:
        config = one_pool(tmp_path)
        config["pools"] += one_pool(tmp_path, name="other", path=str(disk.path), requireMount=True)["pools"]
        with served(config, tmp_path) as server:
            yield server


def creation(name: str, pool: str) -> csi_pb2.CreateVolumeRequest:
    mode = csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER
    capability = csi_pb2.VolumeCapability(
        mount=csi_pb2.VolumeCapability.MountVolume(), access_mode=csi_pb2.VolumeCapability.AccessMode(mode=mode)
    )
    return csi_pb2.CreateVolumeRequest(
        name=name,
        capacity_range=csi_pb2.CapacityRange(required_bytes=MIB),
        volume_capabilities=[capability],
        parameters={"pool": pool},
    )


def refused(server: Served, name: str) -> str:
    """Ask until the pool refuses; a call that is let in waits like those before it, and its caller gives up."""
    deadline = time.monotonic() + PATIENT_S
    for number in range(100):
        with pytest.raises(grpc.RpcError) as caught:
            server.controller.CreateVolume(creation(f"{name}-{number}", "other"), timeout=2)
        if caught.value.code() is grpc.StatusCode.UNAVAILABLE:
            return str(caught.value.details())
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() < deadline, "the pool lets every call in"
    raise AssertionError("the pool lets every call in")


def test_disk_that_hangs_keeps_its_own_calls_and_no_others(server: Served, tmp_path: Path) -> None:
    create = server.controller.CreateVolume
    with frozen(tmp_path / "ext4"):
        waiting = [create.future(creation(f"pvc-{i}", "other"), timeout=PATIENT_S) for i in range(CALLERS)]
        made = create(creation("pvc-beside", "default"), timeout=PATIENT_S)
        assert made.volume.capacity_bytes == MIB
        assert "its disk answers nobody" in refused(server, "pvc-late")
        assert create(creation("pvc-beside", "default"), timeout=PATIENT_S) == made
    kept = [call for call in waiting if call.exception() is None]
    assert len(kept) >= 8
    assert {call.code() for call in waiting if call not in kept} <= {grpc.StatusCode.UNAVAILABLE}
    assert create(creation("pvc-late", "other"), timeout=PATIENT_S).volume.volume_id.endswith(".pvc-late")
    listed = server.controller.ListVolumes(csi_pb2.ListVolumesRequest(), timeout=PATIENT_S)
    assert {entry.volume.volume_id for entry in listed.entries} >= {call.result().volume.volume_id for call in kept}
