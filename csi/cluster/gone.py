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
from csi.cluster.grace import Grace
from csi.node_id import is_digest
from csi.services.identity import NAME
from csi.wire.topology import KEY
from provisioner.errors import NodeUnavailable
from provisioner.names import parse_volume_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi.cluster.api import Api
    from csi.cluster.directory import Directory, Node
    from csi.cluster.events import Events
    from csi.cluster.objects import PersistentVolume, VolumeSpec

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
        directory: Directory,
        nodes: NodeObjects,
        events: Events,
        grace_s: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """grace_s: how long a Node must have been known to be gone. After a restart of ours it counts anew."""
        self._api, self._directory, self._nodes, self._events = api, directory, nodes, events
        self._grace = Grace(grace_s, clock)

    def note_served(self, pool_id: str) -> None:
        """See that a node serves a pool: should it be missed again, that is another absence."""
        self._grace.forget(pool_id)

    def node_to_ask(self, volume_id: str, pool_id: str) -> str:
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
        node, uid = self._home(volume_id, volume.spec)
        uid_now = self._uid_now(volume_id, node)
        if uid_now and uid in ("", uid_now):
            self._grace.forget(pool_id)
            return node
        if uid_now:
            self._check_disks(volume_id, pool_id, node)
        told = f"{node} (uid {uid or 'unknown'})"
        if not _is_given_up(volume, uid):
            raise NodeUnavailable(
                f"volume {volume_id}: its node {told} is gone. If it never comes back, run "
                f"'kubectl annotate pv {volume.metadata.name} {ON_GONE_KEY}=delete'; a class may say so by "
                "the parameter onNodeGone: delete"
            )
        self._check_absence(volume_id, pool_id, told, uid_now)
        # Leading or not: who leads the sidecars is asked, and nobody else hears of it.
        message = f"deleted without its node: {told} is gone for good, and the data with it"
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

    def _home(self, volume_id: str, spec: VolumeSpec) -> tuple[str, str]:
        """Give name and uid of the Node that had a volume; its uid is '' where a person made the PersistentVolume."""
        kept = spec.csi.volume_attributes if spec.csi else {}
        if kept.get(NODE_KEY):
            return kept[NODE_KEY], kept.get(UID_KEY, "")
        node_id = spec.place(KEY)
        known = self._directory.node_with_id(node_id)
        if known:
            return known.name, ""
        if not node_id or is_digest(node_id):
            raise NodeUnavailable(
                f"volume {volume_id}: no node serves its pool, and its PersistentVolume does not say which Node had it"
            )
        return node_id, ""

    def _uid_now(self, volume_id: str, node: str) -> str:
        """Give the uid of the Node that has the name of a volume's Node now, '' where none has."""
        try:
            return self._nodes.uid(node)
        except ApiError as error:
            raise NodeUnavailable(f"volume {volume_id}: whether node {node} is gone is not known: {error}") from error

    def _check_disks(self, volume_id: str, pool_id: str, node: str) -> None:
        """Raise unless the new Node of an old name tells of all its disks: it may be the old machine with the pool."""
        agent = self._directory.node(node)
        if agent is None or not agent.address:
            why = "no agent of this driver tells which disks it has: see to its agent"
        elif missing := next((pool.name for pool in agent.pools if not pool.id), ""):
            why = f"the disk of its pool {missing!r} is not there, and may be the one: mount it, or another"
        else:
            return
        self._grace.forget(pool_id)
        raise NodeUnavailable(f"volume {volume_id}: node {node} was made anew, but {why}")

    def _check_absence(self, volume_id: str, pool_id: str, node: str, uid_now: str) -> None:
        left_s = self._grace.left_s(pool_id, uid_now)
        if left_s > 0:
            raise NodeUnavailable(
                f"volume {volume_id}: node {node} is gone; the volume counts as deleted in {left_s:.0f} s, "
                "should the node not come back until then"
            )
        if self._directory.owner(pool_id):  # while the API server was asked
            self._grace.forget(pool_id)
            raise NodeUnavailable(f"volume {volume_id}: its pool is served again; retry")


def _is(volume: PersistentVolume, volume_id: str) -> bool:
    csi = volume.spec.csi
    return csi is not None and csi.driver == NAME and csi.volume_handle == volume_id


def _is_given_up(volume: PersistentVolume, uid: str) -> bool:
    """Tell whether a volume may go with its node. Where that is known by name only, a person must say so."""
    said = volume.metadata.annotations.get(ON_GONE_KEY)
    kept = volume.spec.csi.volume_attributes if volume.spec.csi and uid else {}
    return (said or kept.get(ON_GONE_KEY)) == "delete"
