"""Ctrl-C and SIGTERM at moments of our choice: never between making something and knowing of it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType


class Interrupts:
    """Turns SIGINT and SIGTERM into KeyboardInterrupt, later if they are on hold. For the main thread."""

    def __init__(self) -> None:
        self._on_hold = self._came = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def hold(self) -> None:
        """Let nothing interrupt from now on."""
        self._on_hold = True

    def let_go(self) -> None:
        """Interrupt at once if a signal came meanwhile, and whenever one comes from now on."""
        self._on_hold = False
        if self._came:
            self._came = False
            raise KeyboardInterrupt

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if not self._on_hold:
            raise KeyboardInterrupt
        self._came = True
