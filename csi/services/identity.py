"""The Identity service: who the plugin is, what it offers as a whole, whether it is ready."""

# ruff: noqa: N802 - the methods have the RPCs' names

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from google.protobuf.wrappers_pb2 import BoolValue

from csi.pb import csi_pb2, csi_pb2_grpc

if TYPE_CHECKING:
    import grpc

    from csi.services.domain import Ready

NAME = "local-path.csi.dev"

_Service = csi_pb2.PluginCapability.Service
_Expansion = csi_pb2.PluginCapability.VolumeExpansion

_CAPABILITIES = (
    csi_pb2.PluginCapability(service=_Service(type=_Service.CONTROLLER_SERVICE)),
    csi_pb2.PluginCapability(service=_Service(type=_Service.VOLUME_ACCESSIBILITY_CONSTRAINTS)),
    csi_pb2.PluginCapability(volume_expansion=_Expansion(type=_Expansion.ONLINE)),
)


def vendor_version() -> str:
    """Give the version of the installed package; sidecars refuse an empty one."""
    try:
        return version("csi-local-path")
    except PackageNotFoundError:  # a bare source tree
        return "unknown"


class Identity(csi_pb2_grpc.IdentityServicer):
    """csi.v1.Identity."""

    def __init__(self, ready: Ready) -> None:
        self._ready = ready
        self._version = vendor_version()

    def GetPluginInfo(
        self, _request: csi_pb2.GetPluginInfoRequest, _context: grpc.ServicerContext
    ) -> csi_pb2.GetPluginInfoResponse:
        """Name the plugin."""
        return csi_pb2.GetPluginInfoResponse(name=NAME, vendor_version=self._version)

    def GetPluginCapabilities(
        self, _request: csi_pb2.GetPluginCapabilitiesRequest, _context: grpc.ServicerContext
    ) -> csi_pb2.GetPluginCapabilitiesResponse:
        """Tell what every instance of this version offers, whatever its role."""
        return csi_pb2.GetPluginCapabilitiesResponse(capabilities=_CAPABILITIES)

    def Probe(self, _request: csi_pb2.ProbeRequest, _context: grpc.ServicerContext) -> csi_pb2.ProbeResponse:
        """Tell whether the first scan has ended (of pools, or of the cluster).

        Dead pools are no reason to say no: a node whose pods run must not be restarted for them.
        """
        return csi_pb2.ProbeResponse(ready=BoolValue(value=self._ready.ready))
