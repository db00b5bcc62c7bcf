"""Nodes that are gone for good, and what becomes of their volumes.

CreateVolume puts into volume_context which Node it was (by uid, for names come again) and what the class wants then.
The PersistentVolume keeps that, so that DeleteVolume can read it when nobody serves the pool any more.
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING

import structlog

from csi.cluster import objects
from csi.cluster.api import ApiError
from csi.node_id import is_digest
from csi.services.identity import NAME
from provisioner.errors import NodeUnavailable
from provisioner.names import parse_volume_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi.cluster.api import Api
    from csi.cluster.directory import Node
    from csi.cluster.events import Events
    from csi.cluster.objects import PersistentVolume

log = structlog.get_logger()

NODE_KEY = f"{NAME}/node"
UID_KEY = f"{NAME}/node-uid"
ON_GONE_KEY = f"{NAME}/on-node-gone"  # in volume_context, and as an annotation of a PersistentVolume

_ASK_AGAIN_S = 10.0
_MOST_KNOWN = 10_000


def context_of(node: Node, on_node_gone: str) -> dict[str, str]:
    """Give the volume_context of a volume on a node."""
    return {NODE_KEY: node.name, UID_KEY: node.uid, ON_GONE_KEY: on_node_gone}


class NodeObjects:
    """Whether the Node objects are there; asked at the API server when it matters, not more often than needed."""

    def __init__(self, api: Callable[[], Api], clock: Callable[[], float] = monotonic) -> None:
        self._api, self._clock = api, clock
        self._guard = threading.Lock()
        self._asked: dict[str, tuple[float, str]] = {}

    def uid(self, name: str) -> str:
        """Give the uid of the Node of that name, '' where there is none; ApiError where nobody can tell."""
        with self._guard:
            at, uid = self._asked.get(name, (-_ASK_AGAIN_S, ""))
        if self._clock() - at < _ASK_AGAIN_S:
            return uid
        try:
            uid = objects.get(self._api(), objects.NODES, name).metadata.uid
        except ApiError as error:
            if not error.is_not_found:
                raise
            uid = ""
        with self._guard:
            if len(self._asked) > _MOST_KNOWN:
                self._asked.clear()
            self._asked[name] = (self._clock(), uid)
        return uid

    def is_deleted(self, node_id: str) -> bool:
        """Tell whether it is known that there is no Node of this id; a digest cannot be asked for."""
        if is_digest(node_id):
            return False
        try:
            return not self.uid(node_id)
        except ApiError as error:
            log.warning("a node cannot be asked for", node=node_id, error=str(error))
            return False


class Gone:
    """Decides about volumes whose pool no node serves."""

    def __init__(
        self,
        api: Callable[[], Api],
        nodes: NodeObjects,
        events: Events,
        grace_s: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """grace_s: how long a Node must have been known to be gone. After a restart of ours it counts anew."""
        self._api, self._nodes, self._events = api, nodes, events
        self._grace_s, self._clock = grace_s, clock
        self._since: dict[str, float] = {}

    def node_to_ask(self, volume_id: str) -> str:
        """Name the node that must still know of a volume; '' where both are gone for good, so that it is deleted.

        NodeUnavailable says why neither is known, or is so yet.
        """
        try:
            volume = self._volume(volume_id)
        except ApiError as error:
            raise NodeUnavailable(f"volume {volume_id}: no node serves its pool, and {error}; retry") from error
        if volume is None or volume.spec.csi is None:
            raise NodeUnavailable(
                f"volume {volume_id}: no node serves its pool, and no PersistentVolume tells where it was; "
                "bring the node or its disk back"
            )
        kept = volume.spec.csi.volume_attributes
        node, uid = kept.get(NODE_KEY, ""), kept.get(UID_KEY, "")
        wish = volume.metadata.annotations.get(ON_GONE_KEY) or kept.get(ON_GONE_KEY, "keep")
        if not self._is_gone(volume_id, node, uid):
            return node
        if wish != "delete":
            raise NodeUnavailable(
                f"volume {volume_id}: its node {node} (uid {uid}) is gone. If it never comes back, run "
                f"'kubectl annotate pv {volume.metadata.name} {ON_GONE_KEY}=delete'; a class may say so by "
                "the parameter onNodeGone: delete"
            )
        self._check_grace(volume_id, node, uid)
        message = f"deleted without its node: {node} (uid {uid}) is gone for good, and the data with it"
        # Leading or not: who leads the sidecars is asked, and nobody else hears of it.
        self._events.warn_volume(volume, "NodeGone", message)
        log.warning("volume gone with its node", volume_id=volume_id, node=node, node_uid=uid)
        return ""

    def _volume(self, volume_id: str) -> PersistentVolume | None:
        """Find the PersistentVolume: csi-provisioner names it as the volume; by hand it may be called otherwise."""
        parsed = parse_volume_id(volume_id)
        api = self._api()
        if parsed:
            try:
                found = objects.get(api, objects.VOLUMES, parsed.folder)
                if _is(found, volume_id):
                    return found
            except ApiError as error:
                if error.status == 0 or error.status >= 500:  # noqa: PLR2004 - the server's own failure
                    raise
        return next((pv for pv in objects.every(api, objects.VOLUMES) if _is(pv, volume_id)), None)

    def _is_gone(self, volume_id: str, node: str, uid: str) -> bool:
        if not node or not uid:
            raise NodeUnavailable(
                f"volume {volume_id}: no node serves its pool, and its PersistentVolume does not say which Node had it"
            )
        try:
            now = self._nodes.uid(node)
        except ApiError as error:
            raise NodeUnavailable(f"volume {volume_id}: whether node {node} is gone is not known: {error}") from error
        if now == uid:
            self._since.pop(uid, None)
        return now != uid

    def _check_grace(self, volume_id: str, node: str, uid: str) -> None:
        since = self._since.setdefault(uid, self._clock())
        left = self._grace_s - (self._clock() - since)
        if left > 0:
            raise NodeUnavailable(
                f"volume {volume_id}: node {node} (uid {uid}) is gone; the volume counts as deleted in {left:.0f} s, "
                "should the node not come back until then"
            )


def _is(volume: PersistentVolume, volume_id: str) -> bool:
    csi = volume.spec.csi
    return csi is not None and csi.driver == NAME and csi.volume_handle == volume_id
