"""A CSI driver that does nothing, at once: what a claim costs without one. Runs in the driver's own image.

It says that it can do what the driver can, so that the sidecars ask as much of it.
"""

# ruff: noqa: N802 - the methods have the RPCs' names

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import grpc

from csi.pb import csi_pb2, csi_pb2_grpc
from csi.services.controller import CAPABILITIES
from csi.services.identity import Identity

NAME = "nothing.local-path.csi.dev"

_WORKERS = 32  # as many as a controller has
_ROOM_BYTES = 1 << 50


class Named(Identity):
    """csi.v1.Identity, by another name; always ready."""

    ready = True

    def __init__(self) -> None:
        super().__init__(self)

    def GetPluginInfo(
        self, _request: csi_pb2.GetPluginInfoRequest, _context: grpc.ServicerContext
    ) -> csi_pb2.GetPluginInfoResponse:
        """Name the plugin."""
        return csi_pb2.GetPluginInfoResponse(name=NAME, vendor_version="1")


class Nothing(csi_pb2_grpc.ControllerServicer):
    """csi.v1.Controller, as far as sidecars ask it."""

    def ControllerGetCapabilities(
        self, _request: csi_pb2.ControllerGetCapabilitiesRequest, _context: grpc.ServicerContext
    ) -> csi_pb2.ControllerGetCapabilitiesResponse:
        """Tell which RPCs work."""
        return csi_pb2.ControllerGetCapabilitiesResponse(capabilities=CAPABILITIES)

    def CreateVolume(
        self, request: csi_pb2.CreateVolumeRequest, _context: grpc.ServicerContext
    ) -> csi_pb2.CreateVolumeResponse:
        """Say that there is a volume, at the first place that will do."""
        volume = csi_pb2.Volume(
            volume_id=request.name,
            capacity_bytes=request.capacity_range.required_bytes,
            accessible_topology=request.accessibility_requirements.preferred[:1],
        )
        return csi_pb2.CreateVolumeResponse(volume=volume)

    def DeleteVolume(
        self, _request: csi_pb2.DeleteVolumeRequest, _context: grpc.ServicerContext
    ) -> csi_pb2.DeleteVolumeResponse:
        """Say that there is none any more."""
        return csi_pb2.DeleteVolumeResponse()

    def GetCapacity(
        self, _request: csi_pb2.GetCapacityRequest, _context: grpc.ServicerContext
    ) -> csi_pb2.GetCapacityResponse:
        """Say that there is room."""
        return csi_pb2.GetCapacityResponse(available_capacity=_ROOM_BYTES)


def main() -> None:
    """Serve until killed."""
    server = grpc.server(ThreadPoolExecutor(_WORKERS))
    csi_pb2_grpc.add_IdentityServicer_to_server(Named(), server)
    csi_pb2_grpc.add_ControllerServicer_to_server(Nothing(), server)
    server.add_insecure_port(os.environ["CSI_ENDPOINT"])
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
