"""The part of the demo that fills a volume: the byte after the last is refused, and growth lets its writer go on."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
from typing import TYPE_CHECKING

from csi.cli.demo_steps import Steps, StoryError
from csi.cli.sizes import human_size
from csi.pb import csi_pb2
from provisioner.identity import CONTROL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from csi.cli.child import Child

MIB = 2**20
SIZE = 64 * MIB
# An XFS has at least 300 MiB, and grows in use; a mounted ext4 does so only for those with CAP_SYS_RESOURCE.
XFS_SIZE, XFS = 320 * MIB, {"backend": "image", "fsType": "xfs", "thin": "true"}
_PATIENCE_S = 60

_CAPABILITY = csi_pb2.VolumeCapability(
    mount=csi_pb2.VolumeCapability.MountVolume(),
    access_mode=csi_pb2.VolumeCapability.AccessMode(mode=csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER),
)

# Writes until it is refused, says so, and tries again until it has written as much more as it is told.
_WRITER = """
import os, sys, time
fd, more, written, refused = os.open("fill", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), int(sys.argv[1]), 0, 0
while not refused or written < refused + more:
    try:
        written += os.write(fd, bytes(65536))
    except OSError as error:
        if not refused:
            refused = written
            print(written, error.errno, flush=True)
        time.sleep(0.02)
os.fsync(fd)
print(written, 0, flush=True)
"""
# A pod has no right to write past limits; root has one, to those of ext4.
_AS_A_POD = ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource"]


class Limits:
    """A volume that fills up and grows."""

    def __init__(self, root: Path, pool: Path, server: Child, steps: Steps) -> None:
        self._pool = pool
        self._server = server
        self._steps = steps
        self._staging, self._target = root / "staging-3", root / "pod-3" / "mount"
        self._staging.mkdir()
        self._target.parent.mkdir()

    def tell(self) -> None:
        """Go through it all."""
        self._steps.heading("A size that holds")
        volume = self._create()
        self._publish(volume.volume_id)
        with self._writer() as writer:
            self._steps.act("pod 3 writes until it is refused", lambda: _refusal(writer, volume.capacity_bytes))
            self._expand(volume.volume_id, volume.capacity_bytes * 2)
            self._steps.act("pod 3, which kept trying, goes on", lambda: _success(writer))
        self._take_away(volume.volume_id)

    def _create(self) -> csi_pb2.Volume:
        """Make a volume with the means that the pool's filesystem offers, and say which."""
        volume = self._make("pvc-full", SIZE, {"enforce": "required"})
        if self._means(volume) != "image":
            return volume
        self._server.controller.DeleteVolume(csi_pb2.DeleteVolumeRequest(volume_id=volume.volume_id), timeout=30)
        return self._make("pvc-full-xfs", XFS_SIZE, XFS)

    def _make(self, name: str, size_bytes: int, parameters: dict[str, str]) -> csi_pb2.Volume:
        request = csi_pb2.CreateVolumeRequest(
            name=name,
            capacity_range=csi_pb2.CapacityRange(required_bytes=size_bytes),
            volume_capabilities=[_CAPABILITY],
            parameters=parameters,
        )
        asked = ", ".join(f"{key}: {value}" for key, value in parameters.items())
        what = f"CreateVolume {name}, {human_size(size_bytes)}, {asked}"
        answer = self._steps.call(
            what, self._server.controller.CreateVolume, request, lambda a: f"held by: {self._means(a.volume)}"
        )
        return answer.volume

    def _means(self, volume: csi_pb2.Volume) -> str:
        folder = volume.volume_id.partition(".")[2]
        record = json.loads((self._pool / CONTROL / "volumes" / folder / "volume.json").read_bytes())
        return str(record["backend"])

    def _publish(self, volume_id: str) -> None:
        stage = csi_pb2.NodeStageVolumeRequest(
            volume_id=volume_id, staging_target_path=str(self._staging), volume_capability=_CAPABILITY
        )
        self._steps.call("NodeStageVolume", self._server.node.NodeStageVolume, stage)
        publish = csi_pb2.NodePublishVolumeRequest(
            volume_id=volume_id,
            staging_target_path=str(self._staging),
            target_path=str(self._target),
            volume_capability=_CAPABILITY,
        )
        self._steps.call("NodePublishVolume for pod 3", self._server.node.NodePublishVolume, publish)

    @contextmanager
    def _writer(self) -> Iterator[subprocess.Popen[str]]:
        command = [*_AS_A_POD, sys.executable, "-c", _WRITER, str(16 * MIB)]
        with subprocess.Popen(command, cwd=self._target, stdout=subprocess.PIPE, text=True) as writer:
            try:
                yield writer
            finally:
                writer.kill()

    def _expand(self, volume_id: str, size_bytes: int) -> None:
        wanted = csi_pb2.CapacityRange(required_bytes=size_bytes)
        grown = self._steps.call(
            f"ControllerExpandVolume to {human_size(size_bytes)}",
            self._server.controller.ControllerExpandVolume,
            csi_pb2.ControllerExpandVolumeRequest(volume_id=volume_id, capacity_range=wanted),
            lambda answer: human_size(answer.capacity_bytes),
        )
        if grown.node_expansion_required:
            self._steps.call(
                "NodeExpandVolume",
                self._server.node.NodeExpandVolume,
                csi_pb2.NodeExpandVolumeRequest(
                    volume_id=volume_id, volume_path=str(self._target), capacity_range=wanted
                ),
                lambda answer: human_size(answer.capacity_bytes),
            )

    def _take_away(self, volume_id: str) -> None:
        node, target, staging = self._server.node, str(self._target), str(self._staging)
        self._steps.call(
            "NodeUnpublishVolume",
            node.NodeUnpublishVolume,
            csi_pb2.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=target),
        )
        self._steps.call(
            "NodeUnstageVolume",
            node.NodeUnstageVolume,
            csi_pb2.NodeUnstageVolumeRequest(volume_id=volume_id, staging_target_path=staging),
        )
        self._steps.call(
            "DeleteVolume",
            self._server.controller.DeleteVolume,
            csi_pb2.DeleteVolumeRequest(volume_id=volume_id),
        )


def _refusal(writer: subprocess.Popen[str], capacity_bytes: int) -> str:
    written, number = _heard(writer)
    if number not in (ENOSPC, EDQUOT) or written > capacity_bytes:
        raise StoryError(f"wanted a refusal within {capacity_bytes} bytes, found error {number} after {written}")
    return f"{human_size(written)}, then: {os.strerror(number)}"


def _success(writer: subprocess.Popen[str]) -> str:
    written, _ = _heard(writer)
    return f"{human_size(written)} written"


def _heard(writer: subprocess.Popen[str]) -> tuple[int, int]:
    """Read what the writer says next: its bytes and an errno."""
    if writer.stdout is None or not select.select([writer.stdout], [], [], _PATIENCE_S)[0]:
        raise StoryError(f"the writer said nothing in {_PATIENCE_S} seconds")
    line = writer.stdout.readline().split()
    if not line:
        raise StoryError(f"the writer ended with status {writer.wait()}")
    return int(line[0]), int(line[1])
