"""What the driver shall answer, said as plainly as can be: dictionaries and the sentences of the specification."""

from __future__ import annotations

from dataclasses import dataclass, field

import grpc

from csi.pb import csi_pb2

OK = grpc.StatusCode.OK
Mode = csi_pb2.VolumeCapability.AccessMode.Mode
MULTI = csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_MULTI_WRITER
READER = csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_READER_ONLY
DEFAULT_BYTES = 2**30


@dataclass
class Shown:
    """A publication."""

    mode: int
    readonly: bool


@dataclass
class Kept:
    """A volume."""

    size: int
    root_mode: str
    content: str = ""
    shown: dict[str, Shown] = field(default_factory=dict)


@dataclass
class Model:
    """All volumes by their names. Each method gives the code of an RPC, and changes what the RPC shall change."""

    volumes: dict[str, Kept] = field(default_factory=dict)

    def create(self, name: str, required: int, limit: int, root_mode: str) -> grpc.StatusCode:
        """Say how CreateVolume ends."""
        if limit and required > limit:
            return grpc.StatusCode.OUT_OF_RANGE
        have = self.volumes.get(name)
        if have is None:
            size = required or min(DEFAULT_BYTES, limit or DEFAULT_BYTES)
            self.volumes[name] = Kept(size, root_mode)
            return OK
        fits = have.size >= required and (not limit or have.size <= limit) and have.root_mode == root_mode
        return OK if fits else grpc.StatusCode.ALREADY_EXISTS

    def delete(self, name: str) -> grpc.StatusCode:
        """Say how DeleteVolume ends."""
        if name in self.volumes and self.volumes[name].shown:
            return grpc.StatusCode.FAILED_PRECONDITION
        self.volumes.pop(name, None)
        return OK

    def expand(self, name: str, required: int, limit: int) -> grpc.StatusCode:
        """Say how ControllerExpandVolume ends."""
        have = self.volumes.get(name)
        if have is None:
            return grpc.StatusCode.NOT_FOUND
        if limit and (required > limit or limit < have.size):
            return grpc.StatusCode.OUT_OF_RANGE
        have.size = max(have.size, required)
        return OK

    def publish(self, name: str, target: str, mode: int, *, readonly: bool) -> grpc.StatusCode:
        """Say how NodePublishVolume ends."""
        have = self.volumes.get(name)
        if have is None:
            return grpc.StatusCode.NOT_FOUND
        wish = Shown(mode, readonly or mode == READER)
        if self.at(target):
            return OK if have.shown.get(target) == wish else grpc.StatusCode.ALREADY_EXISTS
        if any(not shown.mode == mode == MULTI for shown in have.shown.values()):
            return grpc.StatusCode.FAILED_PRECONDITION
        have.shown[target] = wish
        return OK

    def unpublish(self, name: str, target: str) -> grpc.StatusCode:
        """Say how NodeUnpublishVolume ends."""
        if self.at(target) not in ("", name):
            return grpc.StatusCode.FAILED_PRECONDITION
        if name in self.volumes:
            self.volumes[name].shown.pop(target, None)
        return OK

    def statistics(self, name: str, target: str) -> grpc.StatusCode:
        """Say how NodeGetVolumeStats ends."""
        return OK if self.at(target) == name and name in self.volumes else grpc.StatusCode.NOT_FOUND

    def at(self, target: str) -> str:
        """Name the volume that is published at a target, '' for none."""
        return next((name for name, kept in self.volumes.items() if target in kept.shown), "")
