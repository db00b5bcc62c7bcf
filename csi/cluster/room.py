"""What a node's port adds to its answers: that it was the node who spoke, and the room that is left in the pool.

It travels as trailing metadata, so that it comes with refusals too, and counts at once: the Lease follows later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import grpc
import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Handler = grpc.RpcMethodHandler[Any, Any]

KEY = "local-path-room"  # JSON: {pool id: bytes}

_Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]  # of CSI's capacities
_ROOM = msgspec.json.Decoder(dict[str, _Bytes])

# Those that change what is left.
_METHODS = ("CreateVolume", "DeleteVolume", "ControllerExpandVolume")


class RoomInterceptor(grpc.ServerInterceptor):
    """Adds the metadata. room: gives what is left in a pool by its id, None where it cannot be said."""

    def __init__(self, room: Callable[[str], int | None]) -> None:
        self._room = room

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wrap a method; asked once for each, for whoever stands before keeps the answer."""
        found = continuation(handler_call_details)
        if found is None:
            return None
        behavior: Any = found.unary_unary
        room = self._room if handler_call_details.method.endswith(_METHODS) else _nothing

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            response = None
            try:
                response = behavior(request, context)
            finally:
                pool_id = _pool_id(request) or _pool_id(getattr(response, "volume", None))
                context.set_trailing_metadata(((KEY, _encode(pool_id, room)),))
            return response

        return grpc.unary_unary_rpc_method_handler(answer, found.request_deserializer, found.response_serializer)


def _nothing(_pool_id: str) -> None:
    return None


def _pool_id(message: Any) -> str:
    volume_id: str = getattr(message, "volume_id", "")
    return volume_id.partition(".")[0]


def _encode(pool_id: str, room: Callable[[str], int | None]) -> str:
    left = room(pool_id) if pool_id else None
    return msgspec.json.encode({} if left is None else {pool_id: left}).decode()


def room_in(metadata: Iterable[tuple[str, str | bytes]] | None) -> dict[str, int] | None:
    """Read the metadata of an answer; None where it did not come from a node."""
    for key, value in metadata or ():
        if key == KEY:
            try:
                return _ROOM.decode(value)
            except (msgspec.MsgspecError, UnicodeError):
                return {}
    return None
