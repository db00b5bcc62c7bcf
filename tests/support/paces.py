"""Paces for tests: no pauses, and a look at what goes on between two steps."""

from __future__ import annotations

import os
from collections.abc import Callable


def open_fds() -> int:
    """Count the descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


class Unpaced:
    """Counts the steps, and calls `during` with their number before each."""

    def __init__(self, during: Callable[[int], None] | None = None) -> None:
        self.steps = 0
        self._during = during

    def step(self) -> None:
        """Go on at once."""
        self.steps += 1
        if self._during:
            self._during(self.steps)


class FdCounting(Unpaced):
    """Remembers how many descriptors were open at most, beyond those at the start."""

    def __init__(self, every: int = 1) -> None:
        super().__init__(self._look)
        self.most = 0
        self._before = open_fds()
        self._every = every

    def _look(self, steps: int) -> None:
        if steps % self._every == 0:
            self.most = max(self.most, open_fds() - self._before)
