"""Pauses between tries that grow, and differ from one process to the next."""

from __future__ import annotations

import random


class Backoff:
    """Pauses from `first_s`, doubled up to `longest_s`, each shortened by up to a half at random."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._next_s = first_s

    def next(self) -> float:
        """Give the next pause in seconds."""
        pause, self._next_s = self._next_s, min(self._longest_s, self._next_s * 2)
        return pause * random.uniform(0.5, 1)  # noqa: S311 - spreads load

    def reset(self) -> None:
        """Begin again with the first."""
        self._next_s = self._first_s
