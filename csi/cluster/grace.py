"""How long a pool's Node has been known to be gone: without a break, or it begins anew."""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_KNOWN = 10_000
# Whoever wants a volume deleted repeats it every few minutes. After a longer silence it is another absence: what was
# there meanwhile, nobody knows.
_SILENCE_S = 900.0


class Grace:
    """The time that is left for each pool. It counts from the first question, while questions go on."""

    def __init__(self, grace_s: float, clock: Callable[[], float] = monotonic) -> None:
        self._grace_s, self._clock = grace_s, clock
        self._silence_s = max(_SILENCE_S, grace_s)
        self._guard = threading.Lock()
        self._known: dict[str, tuple[str, float, float]] = {}

    def left_s(self, pool_id: str, uid_now: str) -> float:
        """Give the time left, at most 0 where it is over. uid_now: of the Node that has the name now, '' where none."""
        now = self._clock()
        with self._guard:
            uid, first, last = self._known.get(pool_id, (uid_now, now, now))
            if uid != uid_now or now - last > self._silence_s:
                first = now
            if len(self._known) >= _MOST_KNOWN and pool_id not in self._known:
                self._known.clear()
            self._known[pool_id] = uid_now, first, now
        return self._grace_s - (now - first)

    def forget(self, pool_id: str) -> None:
        """Begin anew, should the pool be missed again."""
        with self._guard:
            self._known.pop(pool_id, None)
