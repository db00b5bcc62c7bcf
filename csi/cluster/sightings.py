"""When something was last seen to be alive, by our own clock: that of whoever wrote the Lease may be wrong.

While nothing can be seen, nobody is judged: after a gap everybody counts as seen just now.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi.cluster.leases import Lease

STALE_S = 300.0  # five renewals missed
_GAP_S = 30.0


class Sightings:
    """The last renewal seen of each Lease."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[str, float]] = {}
        self._lost_at: float | None = None

    def note(self, lease: Lease) -> None:
        """See a Lease; one whose renewal is another than the last is alive."""
        name, renewal = lease.metadata.name, lease.spec.renew_time or ""
        known = self._seen.get(name)
        if known is None or known[0] != renewal:
            self._seen[name] = (renewal, self._clock())

    def forget(self, name: str) -> None:
        """Forget a Lease."""
        self._seen.pop(name, None)

    def lose(self) -> None:
        """Know that nothing is seen from now on."""
        if self._lost_at is None:
            self._lost_at = self._clock()

    def resume(self) -> None:
        """See again."""
        now = self._clock()
        if self._lost_at is not None and now - self._lost_at > _GAP_S:
            self._seen = {name: (renewal, now) for name, (renewal, _) in self._seen.items()}
        self._lost_at = None

    def age_s(self, name: str) -> float:
        """Give how long ago a Lease was last seen to be renewed, not counting a gap that lasts; inf if never."""
        if name not in self._seen:
            return float("inf")
        return (self._clock() if self._lost_at is None else self._lost_at) - self._seen[name][1]

    def is_alive(self, name: str) -> bool:
        """Tell whether a Lease was renewed of late."""
        return self.age_s(name) < STALE_S
