"""A pool's id that two nodes claim: told to people, in the log and as an event on the node that may not have it."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi.cluster.events import Events

log = structlog.get_logger()

_AGAIN_S = 300.0
_MOST_KNOWN = 10_000


class Twins:
    """Tells of each pair now and then; asked at every look, so it must cost nothing."""

    def __init__(self, events: Events, is_leading: Callable[[], bool]) -> None:
        self._events, self._is_leading = events, is_leading
        self._told: dict[tuple[str, str, str], float] = {}

    def tell(self, pool_id: str, owner: str, other: str) -> None:
        """Tell that `other` claims a pool that is `owner`'s, or nobody's where that is ''."""
        now, key = monotonic(), (pool_id, owner, other)
        if now - self._told.get(key, -_AGAIN_S) < _AGAIN_S:
            return
        if len(self._told) >= _MOST_KNOWN:  # a node may claim as it likes
            self._told.clear()
        self._told[key] = now
        kept = f"it stays with node {owner}" if owner else "it is blocked until one of them is gone"
        message = (
            f"pool {pool_id} is claimed by this node and by another; {kept}. One disk is a copy: "
            "take it away, or empty it and give it a new identity; if the disk moved here, take the pool out of "
            "the other node's values"
        )
        log.error("pool claimed twice", pool_id=pool_id, node=other, owner=owner)
        if self._is_leading():  # all controllers see it
            self._events.warn_node(other, "PoolClaimedTwice", message)
