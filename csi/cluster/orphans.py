"""A DeleteVolume that goes on only if nobody ever used the volume: what a controller may ask its nodes for.

It is the ordinary call with one more word in its metadata, so it takes the same way as every other. Who does not know
that word deletes without a condition: only a node that announces `only_if_unused` may be sent it.
"""

# ruff: noqa: N802 - the methods have the RPCs' names

from __future__ import annotations

from typing import TYPE_CHECKING

from csi.pb import csi_pb2
from csi.services.controller import Controller
from csi.wire import requests
from csi.wire.calls import CallContext
from provisioner.errors import InvalidRequest
from provisioner.marks import OnlyIfUnused

if TYPE_CHECKING:
    from collections.abc import Iterable

    import grpc

    from provisioner.assembly import Provisioner

KEY = "local-path-only-if-unused"  # its value: how many seconds old a volume must be


def only_if_unused(older_than_s: float) -> tuple[tuple[str, str], ...]:
    """Give the metadata of such a call."""
    return ((KEY, f"{older_than_s:.0f}"),)


class NodeController(Controller):
    """The Controller of one node, as its controllers see it."""

    def __init__(self, provisioner: Provisioner, node_id: str) -> None:
        super().__init__(provisioner.volumes, node_id)
        self._provisioner = provisioner

    def DeleteVolume(
        self, request: csi_pb2.DeleteVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.DeleteVolumeResponse:
        """Remove a volume, or only one that nobody ever used."""
        condition = _condition(context.invocation_metadata())
        if condition is None:
            return super().DeleteVolume(request, context)
        volume_id = requests.required("volume_id", request.volume_id)
        self._provisioner.volumes.delete(volume_id, CallContext(context), only_if=condition)
        return csi_pb2.DeleteVolumeResponse()


def _condition(metadata: Iterable[tuple[str, str | bytes]]) -> OnlyIfUnused | None:
    value = dict(metadata).get(KEY)
    if value is None:
        return None
    try:
        return OnlyIfUnused(float(value))
    except ValueError as error:
        raise InvalidRequest(f"metadata {KEY}: wanted seconds, found {value!r}") from error
