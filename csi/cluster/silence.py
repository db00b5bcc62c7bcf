"""Nodes that do not answer, and since when: of the node, whatever becomes of its address, certificate and channel.

An agent that fails again and again has a new certificate each time, and is as silent as before.
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Two failures that lie further apart, with no call between them, are not one silence. Callers retry every few minutes.
_APART_S = 1800.0


class Silence:
    """When each silent node first did not answer, and last; forgotten as soon as the node is not known any more."""

    def __init__(self, is_known: Callable[[str], object], clock: Callable[[], float] = monotonic) -> None:
        self._is_known, self._clock = is_known, clock
        self._guard = threading.Lock()
        self._silent: dict[str, tuple[float, float]] = {}

    def note_answer(self, node_name: str) -> None:
        """Know that a node answers."""
        with self._guard:
            self._silent.pop(node_name, None)

    def note_silence(self, node_name: str) -> None:
        """Know that a node did not answer."""
        with self._guard:
            self._forget()
            now = self._clock()
            first, last = self._silent.get(node_name, (now, now))
            self._silent[node_name] = (first if now - last < _APART_S else now, now)

    def age_s(self, node_name: str) -> float | None:
        """Give for how long no call was answered, None where the last one was."""
        with self._guard:
            silent = self._silent.get(node_name)
            return self._clock() - silent[0] if silent else None

    def count(self) -> int:
        """Count the nodes that did not answer the last call."""
        with self._guard:
            self._forget()
            return len(self._silent)

    def _forget(self) -> None:
        for name in [name for name in self._silent if not self._is_known(name)]:
            del self._silent[name]
