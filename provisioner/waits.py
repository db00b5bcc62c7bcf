"""The calls that are at work on a pool's disk: one that hangs keeps each call that touches it, and with it a thread.

So only so many may wait there, each after so long. What waits for a program that makes, checks or grows a filesystem
may take long on the best of disks, as after a power cut: such calls are counted apart, and only they are refused where
there are too many.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from provisioner.errors import Unavailable

MOST_CALLS = 8
MOST_PROGRAMS = 8
_HANGS_AFTER_S = 5.0

_of_thread = threading.local()


class Waits:
    """Those of one pool."""

    def __init__(self, *, hangs_after_s: float = _HANGS_AFTER_S) -> None:
        """Begin with none."""
        self._hangs_after_s = hangs_after_s
        self._since: dict[object, float] = {}  # by call that may wait for the disk
        self._programs = 0
        self._guard = threading.Lock()

    @contextmanager
    def call(self) -> Iterator[None]:
        """Count this thread's call, once though it be begun again within itself."""
        call, outer = object(), getattr(_of_thread, "call", None)
        if outer and outer[0] is self:
            yield
            return
        self._since[call] = time.monotonic()
        _of_thread.call = self, call
        try:
            yield
        finally:
            _of_thread.call = outer
            del self._since[call]

    @contextmanager
    def _program(self, call: object) -> Iterator[None]:
        """Count a call as one that waits for a program."""
        with self._guard:
            if self._programs >= MOST_PROGRAMS:
                raise Unavailable(
                    f"{MOST_PROGRAMS} filesystems of this pool are being made, checked or grown already; "
                    "retry when one of them is done"
                )
            self._programs += 1
        self._since.pop(call)
        try:
            yield
        finally:
            self._since[call] = time.monotonic()
            with self._guard:
                self._programs -= 1

    def hang_s(self) -> float:
        """Give how long the first call has waited, where so many wait so long that the disk must hang; else 0."""
        if len(self._since) < MOST_CALLS:
            return 0.0
        now = time.monotonic()
        waited = sorted((now - since for since in list(self._since.values())), reverse=True)[:MOST_CALLS]
        return waited[0] if len(waited) == MOST_CALLS and waited[-1] > self._hangs_after_s else 0.0


@contextmanager
def for_a_program() -> Iterator[None]:
    """Wait for a program in a block, not for the disk; Unavailable where too many calls of the pool do so already."""
    found: tuple[Waits, object] | None = getattr(_of_thread, "call", None)
    if found is None:  # nobody's call
        yield
        return
    waits, call = found
    with waits._program(call):  # noqa: SLF001  its own module's
        yield
