"""The Controller service of role `controller`: every call goes to the node that has the volume, or shall have it.

It keeps nothing. Nodes are believed about their own volumes only: what they answer is checked, and made anew.
"""

# ruff: noqa: N802 - the methods have the RPCs' names

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from csi.cluster.candidates import wanted_ids
from csi.cluster.listing import Listing
from csi.cluster.nodes import patience_of
from csi.pb import csi_pb2, csi_pb2_grpc
from csi.services.controller import CAPABILITIES
from csi.wire import requests, responses, topology
from provisioner.errors import NodeUnavailable
from provisioner.names import identify, parse_volume_id

if TYPE_CHECKING:
    import grpc

    from csi.cluster.capacity import Capacity
    from csi.cluster.creating import Creating
    from csi.cluster.directory import Node
    from csi.cluster.gone import Gone
    from csi.cluster.nodes import Nodes

log = structlog.get_logger()


class RoutingController(csi_pb2_grpc.ControllerServicer):
    """csi.v1.Controller for the volumes of all nodes."""

    def __init__(self, nodes: Nodes, creating: Creating, capacity: Capacity, gone: Gone) -> None:
        self._nodes, self._creating = nodes, creating
        self._capacity, self._gone = capacity, gone
        self._volumes = Listing(nodes, "ListVolumes", csi_pb2.ListVolumesRequest, lambda entry: entry.volume.volume_id)
        self._health = Listing(
            nodes,
            "ControllerListVolumeHealth",
            csi_pb2.ControllerListVolumeHealthRequest,
            lambda entry: entry.volume_id,
        )

    def ControllerGetCapabilities(
        self, _request: csi_pb2.ControllerGetCapabilitiesRequest, _context: grpc.ServicerContext
    ) -> csi_pb2.ControllerGetCapabilitiesResponse:
        """Tell which RPCs work: those of every node."""
        return csi_pb2.ControllerGetCapabilitiesResponse(capabilities=CAPABILITIES)

    def CreateVolume(
        self, request: csi_pb2.CreateVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.CreateVolumeResponse:
        """Make a volume on a node that the topology admits."""
        return self._creating.create(request, context)

    def DeleteVolume(
        self, request: csi_pb2.DeleteVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.DeleteVolumeResponse:
        """Remove a volume; one that went with its node is removed, if its class says so."""
        volume_id = requests.required("volume_id", request.volume_id)
        parsed = parse_volume_id(volume_id)
        if parsed is None:
            return csi_pb2.DeleteVolumeResponse()
        node = self._nodes.owner_of(parsed.pool_id)
        if node is None:
            name = self._gone.node_to_ask(volume_id, parsed.pool_id)
            if not name:
                return csi_pb2.DeleteVolumeResponse()
            node = self._nodes.directory.node(name)
        else:
            self._gone.note_served(parsed.pool_id)
        if node is None:
            raise NodeUnavailable(f"volume {volume_id}: no agent of this driver is known on its node {name}; retry")
        self._forward(node, "DeleteVolume", request, context)
        return csi_pb2.DeleteVolumeResponse()

    def ControllerGetVolume(
        self, request: csi_pb2.ControllerGetVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ControllerGetVolumeResponse:
        """Look a volume up."""
        node = self._with(request.volume_id)
        reply = self._forward(node, "ControllerGetVolume", request, context)
        _check_about(node, request.volume_id, reply.volume.volume_id)
        status = csi_pb2.ControllerGetVolumeResponse.VolumeStatus()  # required, if empty
        return csi_pb2.ControllerGetVolumeResponse(volume=_volume(reply.volume, node.node_id), status=status)

    def ListVolumes(
        self, request: csi_pb2.ListVolumesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ListVolumesResponse:
        """Give a page of the volumes of all nodes."""
        patience_s = partial(patience_of, context)
        found, token = self._volumes.page(request.max_entries, request.starting_token, patience_s)
        entry = csi_pb2.ListVolumesResponse.Entry
        entries = [entry(volume=_volume(listed.volume, node_id)) for listed, node_id in found]
        return csi_pb2.ListVolumesResponse(entries=entries, next_token=token)

    def ValidateVolumeCapabilities(
        self, request: csi_pb2.ValidateVolumeCapabilitiesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ValidateVolumeCapabilitiesResponse:
        """Let the node tell whether a volume can be used as asked."""
        requests.capabilities(request.volume_capabilities)
        reply = self._forward(self._with(request.volume_id), "ValidateVolumeCapabilities", request, context)
        return responses.confirmed(request) if reply.HasField("confirmed") else responses.unconfirmed(reply.message)

    def GetCapacity(
        self, request: csi_pb2.GetCapacityRequest, _context: grpc.ServicerContext
    ) -> csi_pb2.GetCapacityResponse:
        """Tell what one more volume may have at a place, from what the nodes said last."""
        self._nodes.check_complete()
        capabilities = requests.optional_capabilities(request.volume_capabilities)
        node_ids = None
        if request.HasField("accessible_topology"):
            node_ids = wanted_ids(csi_pb2.TopologyRequirement(requisite=[request.accessible_topology]))
        return responses.capacity(self._capacity.available(node_ids, dict(request.parameters), capabilities))

    def ControllerExpandVolume(
        self, request: csi_pb2.ControllerExpandVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ControllerExpandVolumeResponse:
        """Let a volume grow."""
        wanted = requests.wanted_size(request)
        node = self._with(request.volume_id)
        reply = self._forward(node, "ControllerExpandVolume", request, context)
        if reply.capacity_bytes < wanted.required_bytes:
            raise NodeUnavailable(f"node {node.name} answered with a size that was not asked; it cannot be believed")
        return csi_pb2.ControllerExpandVolumeResponse(
            capacity_bytes=reply.capacity_bytes, node_expansion_required=reply.node_expansion_required
        )

    def ControllerGetVolumeHealth(
        self, request: csi_pb2.ControllerGetVolumeHealthRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ControllerGetVolumeHealthResponse:
        """Let the node tell what is wrong with a volume."""
        node = self._with(request.volume_id)
        reply = self._forward(node, "ControllerGetVolumeHealth", request, context)
        _check_about(node, request.volume_id, reply.volume_health.volume_id)
        return csi_pb2.ControllerGetVolumeHealthResponse(volume_health=reply.volume_health)

    def ControllerListVolumeHealth(
        self, request: csi_pb2.ControllerListVolumeHealthRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ControllerListVolumeHealthResponse:
        """Give a page of the volumes of all nodes that are not well."""
        patience_s = partial(patience_of, context)
        found, token = self._health.page(request.max_entries, request.starting_token, patience_s)
        return csi_pb2.ControllerListVolumeHealthResponse(entries=[listed for listed, _ in found], next_token=token)

    def _with(self, volume_id: str) -> Node:
        """Give the node that has a volume; VolumeNotFound where the id was never ours."""
        return self._nodes.with_volume(str(identify(requests.required("volume_id", volume_id))))

    def _forward(self, node: Node, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        return self._nodes.call(node, method, request, patience_of(context))


def _volume(listed: csi_pb2.Volume, node_id: str) -> csi_pb2.Volume:
    """Tell of a volume what its node may tell: where it is, we know."""
    return csi_pb2.Volume(
        volume_id=listed.volume_id,
        capacity_bytes=listed.capacity_bytes,
        accessible_topology=[topology.topology_of(node_id)],
    )


def _check_about(node: Node, wanted: str, found: str) -> None:
    if found != wanted:
        log.error("a node answered about another volume", node=node.name, wanted=wanted, found=found[:128])
        raise NodeUnavailable(f"node {node.name} answered about another volume than {wanted}; it cannot be believed")
