"""Volumes that nobody wants: what a create left behind whose caller forgot it.

csi-provisioner forgets what it was doing when it restarts, and a claim that is deleted in that moment is asked for no
more. So the leading controller looks, now and then, for volumes with neither a PersistentVolume nor a claim. What was
never published, is old and holds no file goes to the trash; everything else is only told.
"""

from __future__ import annotations

import re
import threading
from time import monotonic
from typing import TYPE_CHECKING

import grpc
import msgspec
import structlog

from csi.cluster import objects
from csi.cluster.api import ApiError
from csi.cluster.orphans import only_if_unused
from csi.pb import csi_pb2
from csi.services.identity import NAME
from csi.wire.statuses import ForwardedStatus
from provisioner.errors import ProvisionerError
from provisioner.listing import MAX_PAGE
from provisioner.names import parse_volume_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi.cluster.api import Api
    from csi.cluster.directory import Node
    from csi.cluster.events import Events
    from csi.cluster.nodes import Nodes
    from csi.configuration import ControllerSettings

log = structlog.get_logger()

_CALL_S = 10.0
_NODE_S = 30.0  # for all calls of a list, or of all discards: one that is slow must not keep the others waiting
_MOST_PAGES = 25
_MOST_AT_ONCE = 100  # of one node, in one sweep
_SHOWN = 5
# csi-provisioner names a volume by the uid of its claim. Of any other name, such as that of an ephemeral volume, nobody
# can say that no claim has it: these are none of our business.
_OF_CLAIM = re.compile(r".+-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


class Sweep:
    """Looks in the background. `sweeps` and `discarded` count from the start, `found` is of the last one."""

    def __init__(
        self,
        api: Callable[[], Api],
        nodes: Nodes,
        events: Events,
        may_sweep: Callable[[], bool],
        settings: ControllerSettings,
    ) -> None:
        self._api, self._nodes, self._events = api, nodes, events
        self._may_sweep = may_sweep
        self._age_s, self._pause_s = settings.orphan_age_seconds, settings.orphan_sweep_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)
        self._unable: set[str] = set()  # names of nodes that were said to be left out
        self._last: dict[str, str] = {}  # the orphan of each node that was dealt with last
        self.sweeps = 0
        self.discarded = 0
        self.found = 0

    def start(self) -> None:
        """Begin to look, after a pause."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(self._pause_s):
            if not self._may_sweep() or not self._nodes.directory.is_complete:
                continue
            try:
                self.sweep()
            except ApiError as error:
                log.warning("no sweep", error=str(error))
            except Exception:
                log.exception("the sweep failed")

    def sweep(self) -> None:
        """Look once. The volumes are read before what may want them: what is made meanwhile is not seen at all."""
        volumes: dict[str, Node] = {}
        for node in self._able():
            try:
                volumes |= dict.fromkeys(self._volumes_on(node), node)
            except (ProvisionerError, ForwardedStatus) as error:
                log.info("node left out of the sweep", node=node.name, error=str(error))
        orphans = self._unwanted(volumes)
        self.sweeps, self.found = self.sweeps + 1, len(orphans)
        by_node: dict[str, list[str]] = {}
        for volume_id in orphans:
            by_node.setdefault(volumes[volume_id].name, []).append(volume_id)
        self._last = {name: last for name, last in self._last.items() if name in by_node}
        for found in by_node.values():
            self._deal_with(volumes[found[0]], found)

    def _able(self) -> list[Node]:
        """Give the nodes that may be sent the condition: any other, of an earlier release, would delete without it."""
        nodes = self._nodes.directory.nodes()
        unable = {node.name for node in nodes if not node.only_if_unused}
        for name in sorted(unable - self._unable):
            log.warning("node left out of the sweep until its agent is upgraded", node=name)
        self._unable = unable
        return [node for node in nodes if node.only_if_unused]

    def _volumes_on(self, node: Node) -> list[str]:
        """List a node's volumes, those of pools that are its own."""
        found: list[str] = []
        token, ends = "", monotonic() + _NODE_S
        for _ in range(_MOST_PAGES):
            request = csi_pb2.ListVolumesRequest(starting_token=token)
            reply = self._nodes.call(node, "ListVolumes", request, _left(ends))
            for entry in reply.entries[:MAX_PAGE]:
                parsed = parse_volume_id(entry.volume.volume_id)
                if parsed and self._nodes.directory.owns(node, parsed.pool_id):
                    found.append(entry.volume.volume_id)
            token = reply.next_token
            if not token:
                break
        return found

    def _unwanted(self, volumes: dict[str, Node]) -> list[str]:
        """Keep those that neither a PersistentVolume nor a claim wants. ApiError where that cannot be told of all."""
        left = {volume_id: uid for volume_id in volumes if (uid := _claim_of(volume_id))}
        api, uids = self._api(), set(left.values())
        bound: set[str] = set()  # the names of our PersistentVolumes that claims of these uids have
        for volume in objects.every(api, objects.VOLUMES):
            if volume.spec.csi and volume.spec.csi.driver == NAME:
                left.pop(volume.spec.csi.volume_handle, None)
                if volume.spec.claim_ref and volume.spec.claim_ref.uid in uids:
                    bound.add(volume.metadata.name)
        wanted = {
            claim.metadata.uid
            for claim in objects.every(api, objects.CLAIMS)
            if claim.metadata.uid in uids and claim.spec.volume_name not in bound  # else it has another volume
        }
        return [volume_id for volume_id, uid in left.items() if uid not in wanted]

    def _deal_with(self, node: Node, volume_ids: list[str]) -> None:
        """Discard what nobody ever used, and tell of the rest."""
        discarded: list[str] = []
        kept: dict[str, str] = {}
        ends = monotonic() + _NODE_S
        for volume_id in in_turn(volume_ids, self._last.get(node.name, ""))[:_MOST_AT_ONCE]:
            self._last[node.name] = volume_id
            try:
                self._discard(node, volume_id, _left(ends))
            except ForwardedStatus as error:
                if error.code is grpc.StatusCode.FAILED_PRECONDITION:
                    kept[volume_id] = str(error)
            except ProvisionerError as error:
                log.info("node left out of the sweep", node=node.name, error=str(error))
                break
            else:
                discarded.append(volume_id)
        self.discarded += len(discarded)
        self._tell(node, discarded, kept)

    def _discard(self, node: Node, volume_id: str, patience_s: float) -> None:
        """Let a node discard a volume, if it is old and nobody ever used it."""
        request = csi_pb2.DeleteVolumeRequest(volume_id=volume_id)
        self._nodes.call(node, "DeleteVolume", request, patience_s, only_if_unused(self._age_s))

    def _tell(self, node: Node, discarded: list[str], kept: dict[str, str]) -> None:
        if discarded:
            log.warning("orphans discarded", node=node.name, volume_ids=discarded)
            message = f"{len(discarded)} volumes that nobody ever used, and no claim wants, went to the trash: "
            self._events.warn_node(node.name, "OrphansDiscarded", message + _some(discarded))
        if kept:
            log.warning("orphans found", node=node.name, volumes=msgspec.json.encode(kept).decode())
            message = f"{len(kept)} volumes have neither a PersistentVolume nor a claim, and are left alone: "
            self._events.warn_node(node.name, "OrphansFound", message + _some(list(kept)))


def in_turn(volume_ids: list[str], last: str) -> list[str]:
    """Order volumes so that those after the last one come first: however many are kept, each has its turn."""
    return sorted(volume_ids, key=lambda volume_id: (volume_id <= last, volume_id))


def _claim_of(volume_id: str) -> str:
    """Give the uid of the claim that a volume was made for, '' where its name does not say."""
    parsed = parse_volume_id(volume_id)
    match = _OF_CLAIM.fullmatch(parsed.folder) if parsed else None
    return match[1] if match else ""


def _left(ends: float) -> float:
    return min(_CALL_S, ends - monotonic())


def _some(volume_ids: list[str]) -> str:
    return ", ".join(volume_ids[:_SHOWN]) + (" and more" if len(volume_ids) > _SHOWN else "")
