"""Nodes that were asked for and have no Lease: since when, so that they are not waited for without end."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST = 10_000


class Unseen:
    """When each was first asked for in vain; forgotten as soon as it is not asked for any more."""

    def __init__(self, give_up_s: float, clock: Callable[[], float] = monotonic) -> None:
        self._give_up_s, self._clock = give_up_s, clock
        self._asked: dict[str, tuple[float, float]] = {}

    def is_given_up(self, node_id: str) -> bool:
        """Ask for a node in vain; True once that has gone on for so long that another should be taken."""
        now = self._clock()
        first, last = self._asked.get(node_id, (now, now))
        if now - last > self._give_up_s * 2:  # another wish, long after
            first = now
        if len(self._asked) > _MOST:
            self._asked.clear()
        self._asked[node_id] = (first, now)
        return now - first > self._give_up_s
