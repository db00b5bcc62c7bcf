"""A gRPC call as the domain sees it: somebody whose patience ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from provisioner.errors import Cancelled, DeadlineExceeded

if TYPE_CHECKING:
    import grpc


class CallContext:
    """The `provisioner.model.Call` of one RPC."""

    __slots__ = ("_context",)

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._context = context

    def check(self) -> None:
        """Raise DeadlineExceeded or Cancelled once nobody waits for the answer any more.

        The clock is asked first: a deadline that has passed may not yet have ended the call.
        """
        if self._context.time_remaining() <= 0:
            raise DeadlineExceeded("the caller's deadline passed; nothing was left half done, so ask again")
        if not self._context.is_active():
            raise Cancelled("the caller went away; nothing was left half done, so ask again")
