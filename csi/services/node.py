"""The Node service: volumes at paths of this node. Parse, call one domain method, respond."""

# ruff: noqa: N802 - the methods have the RPCs' names

from __future__ import annotations

from typing import TYPE_CHECKING

from csi.pb import csi_pb2, csi_pb2_grpc
from csi.wire import requests, responses, topology
from csi.wire.calls import CallContext

if TYPE_CHECKING:
    import grpc

    from csi.services.domain import Provisioner

_RPC = csi_pb2.NodeServiceCapability.RPC

_CAPABILITIES = tuple(
    csi_pb2.NodeServiceCapability(rpc=_RPC(type=kind))
    for kind in (
        _RPC.STAGE_UNSTAGE_VOLUME,
        _RPC.GET_VOLUME_STATS,
        _RPC.EXPAND_VOLUME,
        _RPC.SINGLE_NODE_MULTI_WRITER,
        _RPC.GET_VOLUME_HEALTH,
        _RPC.GET_STORAGE_HEALTH,
    )
)


class Node(csi_pb2_grpc.NodeServicer):
    """csi.v1.Node."""

    def __init__(self, provisioner: Provisioner, node_id: str) -> None:
        self._volumes = provisioner.volumes
        self._publishing = provisioner.publishing
        self._node_id = node_id

    def NodeGetCapabilities(
        self, _request: csi_pb2.NodeGetCapabilitiesRequest, _context: grpc.ServicerContext
    ) -> csi_pb2.NodeGetCapabilitiesResponse:
        """Tell which RPCs work."""
        return csi_pb2.NodeGetCapabilitiesResponse(capabilities=_CAPABILITIES)

    def NodeGetInfo(
        self, _request: csi_pb2.NodeGetInfoRequest, _context: grpc.ServicerContext
    ) -> csi_pb2.NodeGetInfoResponse:
        """Name the node and where it lies; it may hold any number of volumes."""
        return csi_pb2.NodeGetInfoResponse(
            node_id=self._node_id, accessible_topology=topology.topology_of(self._node_id)
        )

    def NodeStageVolume(
        self, request: csi_pb2.NodeStageVolumeRequest, _context: grpc.ServicerContext
    ) -> csi_pb2.NodeStageVolumeResponse:
        """Make a volume ready to be published."""
        volume_id = requests.required("volume_id", request.volume_id)
        path = requests.required("staging_target_path", request.staging_target_path)
        self._publishing.stage(volume_id, path, requests.capability(request))
        return csi_pb2.NodeStageVolumeResponse()

    def NodeUnstageVolume(
        self, request: csi_pb2.NodeUnstageVolumeRequest, _context: grpc.ServicerContext
    ) -> csi_pb2.NodeUnstageVolumeResponse:
        """Undo NodeStageVolume."""
        volume_id = requests.required("volume_id", request.volume_id)
        self._publishing.unstage(volume_id, requests.required("staging_target_path", request.staging_target_path))
        return csi_pb2.NodeUnstageVolumeResponse()

    def NodePublishVolume(
        self, request: csi_pb2.NodePublishVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodePublishVolumeResponse:
        """Show a volume at a path."""
        self._publishing.publish(requests.publication(request), CallContext(context))
        return csi_pb2.NodePublishVolumeResponse()

    def NodeUnpublishVolume(
        self, request: csi_pb2.NodeUnpublishVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeUnpublishVolumeResponse:
        """Undo NodePublishVolume."""
        volume_id = requests.required("volume_id", request.volume_id)
        target_path = requests.required("target_path", request.target_path)
        self._publishing.unpublish(volume_id, target_path, CallContext(context))
        return csi_pb2.NodeUnpublishVolumeResponse()

    def NodeGetVolumeStats(
        self, request: csi_pb2.NodeGetVolumeStatsRequest, _context: grpc.ServicerContext
    ) -> csi_pb2.NodeGetVolumeStatsResponse:
        """Give the figures of a published volume."""
        volume_id = requests.required("volume_id", request.volume_id)
        volume_path = requests.required("volume_path", request.volume_path)
        return responses.statistics(self._publishing.statistics(volume_id, volume_path))

    def NodeExpandVolume(
        self, request: csi_pb2.NodeExpandVolumeRequest, _context: grpc.ServicerContext
    ) -> csi_pb2.NodeExpandVolumeResponse:
        """Let a published volume grow to what was promised."""
        volume_id = requests.required("volume_id", request.volume_id)
        volume_path = requests.required("volume_path", request.volume_path)
        wanted = requests.capacity_range(request.capacity_range)
        return csi_pb2.NodeExpandVolumeResponse(capacity_bytes=self._publishing.expand(volume_id, volume_path, wanted))

    def NodeGetVolumeHealth(
        self, request: csi_pb2.NodeGetVolumeHealthRequest, _context: grpc.ServicerContext
    ) -> csi_pb2.NodeGetVolumeHealthResponse:
        """Tell what is wrong with a volume, published or not."""
        volume_id = requests.required("volume_id", request.volume_id)
        found = self._publishing.health(volume_id, request.volume_publish_path)
        return csi_pb2.NodeGetVolumeHealthResponse(volume_health=responses.health(found))

    def NodeGetStorageHealth(
        self, _request: csi_pb2.NodeGetStorageHealthRequest, _context: grpc.ServicerContext
    ) -> csi_pb2.NodeGetStorageHealthResponse:
        """Tell what is wrong with the pools."""
        return responses.storage_health(self._volumes.storage_health())
