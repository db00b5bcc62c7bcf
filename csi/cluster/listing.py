"""Lists of volumes over all nodes: pool by pool in the order of the pools' ids, which no coming or going changes.

A token is of the same form as a node's own, 'after this id', so it is good at every replica. A node that cannot be
asked ends the list with an error: a shorter one would say that volumes are gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from csi.wire import requests
from provisioner.errors import NodeUnavailable, PoolUnavailable
from provisioner.listing import AFTER, MAX_PAGE, parse_token
from provisioner.names import VolumeId, parse_volume_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi.cluster.nodes import Nodes

log = structlog.get_logger()

_MOST_CALLS = 64  # of one page; a page may be shorter than asked and not be the last
_LAST_FOLDER = "z" * 96  # no volume's folder comes after it
_FIRST_POOL = VolumeId("0" * 16, "")


class Listing(NamedTuple):
    """One of the two lists of CSI: the method of the nodes, its request, and the id that an entry is about."""

    nodes: Nodes
    method: str
    request: Callable[..., Any]
    id_of: Callable[[Any], str]

    def page(
        self, max_entries: int, starting_token: str, patience_s: Callable[[], float]
    ) -> tuple[list[tuple[Any, str]], str]:
        """Give entries, each with the node_id where it is, and the token of the next page."""
        wanted = requests.max_entries(max_entries)
        size = min(wanted, MAX_PAGE) if wanted else MAX_PAGE
        position = parse_token(starting_token) or _FIRST_POOL
        self.nodes.check_complete()
        self._check_whole()
        found: list[tuple[Any, str]] = []
        for _ in range(_MOST_CALLS):
            pool_id = self._pool_at(position)
            if not pool_id:
                return found, ""
            if len(found) >= size:
                break
            if pool_id != position.pool_id:
                position = VolumeId(pool_id, "")
            entries, node_id, position = self._ask(position, size - len(found), patience_s())
            found += [(entry, node_id) for entry in entries]
        return found, f"{AFTER}{position}" if self._pool_at(position) else ""

    def _check_whole(self) -> None:
        unfit = self.nodes.directory.unfit()
        if unfit:
            raise PoolUnavailable(
                f"the list would not be whole: node {unfit} has a pool whose disk is not there, or cannot be read"
            )

    def _pool_at(self, position: VolumeId) -> str:
        """Give the pool that comes next; '' after the last."""
        following = self.nodes.directory.pool_ids_from(position.pool_id, 2)
        if position.folder == _LAST_FOLDER and following[:1] == [position.pool_id]:
            following = following[1:]
        return following[0] if following else ""

    def _ask(self, position: VolumeId, count: int, patience_s: float) -> tuple[list[Any], str, VolumeId]:
        """Ask the node of a pool for what follows `position` in it."""
        pool_id = position.pool_id
        node = self.nodes.owner_of(pool_id)
        if node is None:  # went just now
            return [], "", VolumeId(pool_id, _LAST_FOLDER)
        request = self.request(max_entries=count, starting_token=_token(position))
        reply = self.nodes.call(node, self.method, request, patience_s)
        entries, last = self._ours(reply.entries, position, count)
        if len(entries) < len(reply.entries) and not _leaves(reply.entries, self.id_of, pool_id):
            log.error("a node listed what is not its own", node=node.name, pool_id=pool_id)
        following = parse_volume_id(reply.next_token.removeprefix(AFTER))
        if following is None or following.pool_id != pool_id:
            return entries, node.node_id, VolumeId(pool_id, _LAST_FOLDER)
        if following <= position or following < last:
            raise NodeUnavailable(f"node {node.name} lists its volumes without an end; it cannot be believed")
        return entries, node.node_id, following

    def _ours(self, entries: Any, position: VolumeId, count: int) -> tuple[list[Any], VolumeId]:
        """Keep the entries that are in the pool, and follow each other."""
        kept: list[Any] = []
        last = position
        for entry in entries:
            volume_id = parse_volume_id(self.id_of(entry))
            if volume_id and volume_id.pool_id == position.pool_id and volume_id > last and len(kept) < count:
                kept.append(entry)
                last = volume_id
        return kept, last


def _leaves(entries: Any, id_of: Callable[[Any], str], pool_id: str) -> bool:
    """Tell whether a page only goes on to a further pool of the same node, which is asked for in its turn."""
    ids = [parse_volume_id(id_of(entry)) for entry in entries]
    return all(volume_id is not None and volume_id.pool_id >= pool_id for volume_id in ids)


def _token(position: VolumeId) -> str:
    """Give what a node is to be asked with: after the position, or from the pool's first volume on."""
    if position.folder:
        return f"{AFTER}{position}"
    before = int(position.pool_id, 16) - 1
    return f"{AFTER}{VolumeId(f'{before:016x}', _LAST_FOLDER)}" if before >= 0 else ""
