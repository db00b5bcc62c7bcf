"""A client of any CSI endpoint: one method for each call that the bench makes.

Nothing here knows our driver, so that a peer is measured by the same code.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc

from csi.pb import csi_pb2 as pb
from csi.pb import csi_pb2_grpc as rpc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SIZE_BYTES = 1 << 20
TIMEOUT_S = 60.0

# Without it channels of one process share their connections, and ten callers would be one.
_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)
_CAPABILITY = pb.VolumeCapability(
    mount=pb.VolumeCapability.MountVolume(),
    access_mode=pb.VolumeCapability.AccessMode(mode=pb.VolumeCapability.AccessMode.SINGLE_NODE_WRITER),
)


@dataclass(frozen=True, slots=True)
class Placed:
    """A volume and the paths that it is staged and published at."""

    volume_id: str
    staging: str
    target: str
    context: dict[str, str] = field(default_factory=dict)


class _Stubs:
    def __init__(self, channel: grpc.Channel) -> None:
        self.identity = rpc.IdentityStub(channel)
        self.controller = rpc.ControllerStub(channel)
        self.node = rpc.NodeStub(channel)


class Client:
    """One caller with a connection of its own.

    fresh: dial for each call, as the kubelet does. work: folder for staging and target paths.
    """

    def __init__(self, endpoint: str, work: Path, *, fresh: bool = False) -> None:
        self._endpoint = endpoint
        self._work = work
        self._fresh = fresh
        self._channel = self._dial()
        self._stubs = _Stubs(self._channel)

    def _dial(self) -> grpc.Channel:
        return grpc.insecure_channel(self._endpoint, _OPTIONS)

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    @contextmanager
    def _calling(self) -> Iterator[_Stubs]:
        if not self._fresh:
            yield self._stubs
            return
        with self._dial() as channel:
            yield _Stubs(channel)

    def probe(self) -> bool:
        """Ask whether the server is ready."""
        with self._calling() as stubs:
            answer = stubs.identity.Probe(pb.ProbeRequest(), timeout=TIMEOUT_S)
        return answer.ready.value or not answer.HasField("ready")

    def create(
        self, name: str, segments: Mapping[str, str] | None = None, size_bytes: int = SIZE_BYTES, /, **parameters: str
    ) -> Placed:
        """Create a volume and choose its paths. segments: of the one place where it shall be."""
        request = pb.CreateVolumeRequest(
            name=name,
            capacity_range=pb.CapacityRange(required_bytes=size_bytes),
            volume_capabilities=[_CAPABILITY],
            parameters=parameters,
        )
        if segments:
            place = pb.Topology(segments=segments)
            request.accessibility_requirements.MergeFrom(pb.TopologyRequirement(requisite=[place], preferred=[place]))
        with self._calling() as stubs:
            volume = stubs.controller.CreateVolume(request, timeout=TIMEOUT_S).volume
        return Placed(
            volume.volume_id,
            str(self._work / "staging" / name),
            str(self._work / "pods" / name / "mount"),
            dict(volume.volume_context),
        )

    def expand(self, volume_id: str, size_bytes: int) -> None:
        """Let a volume grow."""
        request = pb.ControllerExpandVolumeRequest(
            volume_id=volume_id,
            capacity_range=pb.CapacityRange(required_bytes=size_bytes),
            volume_capability=_CAPABILITY,
        )
        with self._calling() as stubs:
            stubs.controller.ControllerExpandVolume(request, timeout=TIMEOUT_S)

    def delete(self, volume_id: str) -> None:
        """Delete a volume."""
        with self._calling() as stubs:
            stubs.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=volume_id), timeout=TIMEOUT_S)

    def validate(self, volume_id: str) -> None:
        """Ask whether a volume can do what it was created for."""
        with self._calling() as stubs:
            request = pb.ValidateVolumeCapabilitiesRequest(volume_id=volume_id, volume_capabilities=[_CAPABILITY])
            stubs.controller.ValidateVolumeCapabilities(request, timeout=TIMEOUT_S)

    def page(self, max_entries: int, token: str = "") -> tuple[list[str], str]:
        """List one page; gives the ids and the token of the next one."""
        with self._calling() as stubs:
            request = pb.ListVolumesRequest(max_entries=max_entries, starting_token=token)
            answer = stubs.controller.ListVolumes(request, timeout=TIMEOUT_S)
        return [entry.volume.volume_id for entry in answer.entries], answer.next_token

    def all_ids(self) -> list[str]:
        """List every volume, by pages of 1,000."""
        ids, token = self.page(1000)
        while token:
            more, token = self.page(1000, token)
            ids += more
        return ids

    def can_stage(self) -> bool:
        """Ask whether volumes are staged before they are published."""
        with self._calling() as stubs:
            answer = stubs.node.NodeGetCapabilities(pb.NodeGetCapabilitiesRequest(), timeout=TIMEOUT_S)
        stage = pb.NodeServiceCapability.RPC.STAGE_UNSTAGE_VOLUME
        return any(capability.rpc.type == stage for capability in answer.capabilities)

    def stage(self, volume: Placed) -> None:
        """Stage a volume."""
        with self._calling() as stubs:
            request = pb.NodeStageVolumeRequest(
                volume_id=volume.volume_id,
                staging_target_path=volume.staging,
                volume_capability=_CAPABILITY,
                volume_context=volume.context,
            )
            stubs.node.NodeStageVolume(request, timeout=TIMEOUT_S)

    def unstage(self, volume: Placed) -> None:
        """Undo `stage`."""
        with self._calling() as stubs:
            request = pb.NodeUnstageVolumeRequest(volume_id=volume.volume_id, staging_target_path=volume.staging)
            stubs.node.NodeUnstageVolume(request, timeout=TIMEOUT_S)

    def publish(self, volume: Placed) -> None:
        """Mount a volume at its target; the folder above it must exist."""
        with self._calling() as stubs:
            request = pb.NodePublishVolumeRequest(
                volume_id=volume.volume_id,
                staging_target_path=volume.staging,
                target_path=volume.target,
                volume_capability=_CAPABILITY,
                volume_context=volume.context,
            )
            stubs.node.NodePublishVolume(request, timeout=TIMEOUT_S)

    def unpublish(self, volume: Placed) -> None:
        """Undo `publish`."""
        with self._calling() as stubs:
            request = pb.NodeUnpublishVolumeRequest(volume_id=volume.volume_id, target_path=volume.target)
            stubs.node.NodeUnpublishVolume(request, timeout=TIMEOUT_S)

    def stats(self, volume: Placed) -> None:
        """Ask for the figures of a published volume."""
        with self._calling() as stubs:
            request = pb.NodeGetVolumeStatsRequest(
                volume_id=volume.volume_id,
                volume_path=volume.target,
                staging_target_path=volume.staging,
            )
            stubs.node.NodeGetVolumeStats(request, timeout=TIMEOUT_S)
