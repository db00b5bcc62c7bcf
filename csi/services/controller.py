"""The Controller service: volumes come, grow, and go. Parse, call one domain method, respond."""

# ruff: noqa: N802 - the methods have the RPCs' names

from __future__ import annotations

from typing import TYPE_CHECKING

from csi.pb import csi_pb2, csi_pb2_grpc
from csi.wire import requests, responses, topology
from csi.wire.calls import CallContext
from provisioner.model import AvailableCapacity

if TYPE_CHECKING:
    import grpc

    from csi.services.domain import Volumes

_RPC = csi_pb2.ControllerServiceCapability.RPC

CAPABILITIES = tuple(
    csi_pb2.ControllerServiceCapability(rpc=_RPC(type=kind))
    for kind in (
        _RPC.CREATE_DELETE_VOLUME,
        _RPC.LIST_VOLUMES,
        _RPC.GET_CAPACITY,
        _RPC.EXPAND_VOLUME,
        _RPC.GET_VOLUME,
        _RPC.SINGLE_NODE_MULTI_WRITER,
        _RPC.GET_VOLUME_HEALTH,
        _RPC.LIST_VOLUME_HEALTH,
    )
)


class Controller(csi_pb2_grpc.ControllerServicer):
    """csi.v1.Controller for the volumes of one node."""

    def __init__(self, volumes: Volumes, node_id: str) -> None:
        self._volumes = volumes
        self._node_id = node_id
        self._topology = topology.topology_of(node_id)

    def ControllerGetCapabilities(
        self, _request: csi_pb2.ControllerGetCapabilitiesRequest, _context: grpc.ServicerContext
    ) -> csi_pb2.ControllerGetCapabilitiesResponse:
        """Tell which RPCs work."""
        return csi_pb2.ControllerGetCapabilitiesResponse(capabilities=CAPABILITIES)

    def CreateVolume(
        self, request: csi_pb2.CreateVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.CreateVolumeResponse:
        """Make a volume on this node."""
        new_volume = requests.new_volume(request)
        topology.check_requirement(request.accessibility_requirements, self._node_id)
        volume = self._volumes.create(new_volume, CallContext(context))
        return csi_pb2.CreateVolumeResponse(volume=responses.volume(volume, self._topology))

    def DeleteVolume(
        self, request: csi_pb2.DeleteVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.DeleteVolumeResponse:
        """Remove a volume."""
        self._volumes.delete(requests.required("volume_id", request.volume_id), CallContext(context))
        return csi_pb2.DeleteVolumeResponse()

    def ControllerGetVolume(
        self, request: csi_pb2.ControllerGetVolumeRequest, _context: grpc.ServicerContext
    ) -> csi_pb2.ControllerGetVolumeResponse:
        """Look a volume up."""
        volume = self._volumes.get(requests.required("volume_id", request.volume_id))
        status = csi_pb2.ControllerGetVolumeResponse.VolumeStatus()  # required, if empty
        return csi_pb2.ControllerGetVolumeResponse(volume=responses.volume(volume, self._topology), status=status)

    def ListVolumes(
        self, request: csi_pb2.ListVolumesRequest, _context: grpc.ServicerContext
    ) -> csi_pb2.ListVolumesResponse:
        """Give a page of volumes."""
        count = requests.max_entries(request.max_entries)
        return responses.volumes(self._volumes.list(count, request.starting_token), self._topology)

    def ValidateVolumeCapabilities(
        self, request: csi_pb2.ValidateVolumeCapabilitiesRequest, _context: grpc.ServicerContext
    ) -> csi_pb2.ValidateVolumeCapabilitiesResponse:
        """Tell whether a volume can be used as asked. Context keys are not ours to judge: sidecars add some."""
        volume_id = requests.required("volume_id", request.volume_id)
        capabilities = requests.capabilities(request.volume_capabilities)
        reason = self._volumes.validate(volume_id, capabilities, dict(request.parameters))
        reason = reason or requests.mutable_refusal(request.mutable_parameters)
        return responses.unconfirmed(reason) if reason else responses.confirmed(request)

    def GetCapacity(
        self, request: csi_pb2.GetCapacityRequest, _context: grpc.ServicerContext
    ) -> csi_pb2.GetCapacityResponse:
        """Tell what one more volume may have; elsewhere than on this node, nothing."""
        capabilities = requests.optional_capabilities(request.volume_capabilities)
        if not topology.admits(request.accessible_topology, self._node_id):
            return responses.capacity(AvailableCapacity(0, 0))
        return responses.capacity(self._volumes.capacity(dict(request.parameters), capabilities))

    def ControllerExpandVolume(
        self, request: csi_pb2.ControllerExpandVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ControllerExpandVolumeResponse:
        """Let a volume grow; where its filesystem is its own, the node has something left to do."""
        volume_id = requests.required("volume_id", request.volume_id)
        wanted = requests.wanted_size(request)
        capability = requests.optional_capability(request)
        volume = self._volumes.expand(volume_id, wanted, capability, CallContext(context))
        return csi_pb2.ControllerExpandVolumeResponse(
            capacity_bytes=volume.capacity_bytes, node_expansion_required=volume.grows_on_node
        )

    def ControllerGetVolumeHealth(
        self, request: csi_pb2.ControllerGetVolumeHealthRequest, _context: grpc.ServicerContext
    ) -> csi_pb2.ControllerGetVolumeHealthResponse:
        """Tell what is wrong with a volume."""
        found = self._volumes.health(requests.required("volume_id", request.volume_id))
        return csi_pb2.ControllerGetVolumeHealthResponse(volume_health=responses.health(found))

    def ControllerListVolumeHealth(
        self, request: csi_pb2.ControllerListVolumeHealthRequest, _context: grpc.ServicerContext
    ) -> csi_pb2.ControllerListVolumeHealthResponse:
        """Give a page of volumes with what is wrong with each."""
        count = requests.max_entries(request.max_entries)
        return responses.health_page(self._volumes.list_health(count, request.starting_token))
