"""Calls to nodes: which one has a volume, whether it answers, and what is to be made of it if it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import grpc
import structlog

from csi.cluster.room import room_in
from csi.cluster.silence import Silence
from csi.wire.statuses import ForwardedStatus
from provisioner.errors import DeadlineExceeded, NodeUnavailable, NotReady, PoolUnavailable
from provisioner.names import parse_volume_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from csi.cluster.directory import Directory, Node
    from csi.cluster.peers import Peers

log = structlog.get_logger()

_LONGEST_CALL_S = 120.0


class Nodes:
    """The nodes of the directory, and the ways to them. give_up_s: after that time without a word, one is down."""

    def __init__(self, directory: Directory, peers: Peers, give_up_s: float) -> None:
        self.directory = directory
        self._peers = peers
        self._give_up_s = give_up_s
        self.silence = Silence(directory.node)

    def check_complete(self) -> None:
        """Raise NotReady until all Leases were read once."""
        if not self.directory.is_complete:
            raise NotReady("the controller is still reading who is in the cluster; retry in a moment")

    def owner_of(self, pool_id: str) -> Node | None:
        """Give the node that serves a pool; None where no node does, PoolUnavailable where that is unclear."""
        self.check_complete()
        return self.directory.owner(pool_id)

    def with_volume(self, volume_id: str) -> Node:
        """Give the node that has a volume; PoolUnavailable where no node serves its pool."""
        parsed = parse_volume_id(volume_id)
        node = self.owner_of(parsed.pool_id) if parsed else None
        if node is None:
            raise PoolUnavailable(
                f"volume {volume_id}: no node of the cluster serves its pool; bring the node back, or its disk"
            )
        return node

    def is_given_up(self, node: Node) -> bool:
        """Tell whether a node did not answer last time, and should not be waited for any longer."""
        silent_s = self.silence.age_s(node.name)
        return silent_s is not None and max(silent_s, self.directory.unheard_s(node.name)) > self._give_up_s

    def call(
        self, node: Node, method: str, request: Any, patience_s: float, metadata: Sequence[tuple[str, str]] = ()
    ) -> Any:
        """Let a node answer a call of its Controller. A refusal of its own is ForwardedStatus, silence NodeUnavailable.

        patience_s: how long our own caller waits.
        """
        if not node.address:
            raise NodeUnavailable(f"node {node.name}: its announcement cannot be used; see the controller's log")
        if patience_s <= 0:
            raise DeadlineExceeded("the caller's deadline passed; ask again")
        try:
            with self._peers.calling(node) as peer, peer.waiting.calling(node.name, patience_s) as timeout_s:
                rpc = getattr(peer.controller, method)
                response, call = rpc.with_call(request, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            raise self._failure(node, method, cast("grpc.Call", error)) from None
        except ValueError as error:  # the channel was closed meanwhile
            raise NodeUnavailable(f"node {node.name}: the controller ends just now; retry") from error
        self.silence.note_answer(node.name)
        self.directory.note_room(node, room_in(call.trailing_metadata()) or {})
        return response

    def _failure(self, node: Node, method: str, call: grpc.Call) -> Exception:
        code, room = call.code(), room_in(call.trailing_metadata())
        if room is not None:
            self.silence.note_answer(node.name)
            self.directory.note_room(node, room)
            return ForwardedStatus(code, call.details() or "")
        self.silence.note_silence(node.name)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(f"node {node.name}: {method} was not answered in time; retry")
        return NodeUnavailable(f"node {node.name} does not answer: {call.details()}; it is asked again at the next try")


def patience_of(context: grpc.ServicerContext) -> float:
    """Give how long the caller of an RPC waits, in seconds."""
    return min(context.time_remaining(), _LONGEST_CALL_S)
