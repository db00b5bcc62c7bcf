"""How fast background work may go, so that the calls of the moment hardly feel it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol


class Stopped(Exception):
    """The work was told to end before it was done; what is done stays done."""


class Paced(Protocol):
    """What long work asks after each small unit of it."""

    def step(self) -> None:
        """Return when the next unit may begin; Stopped where there shall be none."""


class Pace:
    """Bounds a thread to a share of the time: after `work_s` of work, a pause `rest` times as long as it took.

    Two milliseconds are some hundred unlinks: little for one journal commit to carry, and little for a call
    that comes in the middle. Nine times as long a pause leaves a tenth of one core, and of the disk, to the
    work, so that most calls meet none of it. Seen on ext4 and 2 cores, median of a create while files are
    erased against a quiet one: 2.3 without pauses, 1.4 with pauses as long as the work; with four times as
    long, 1.1 to 1.8 from run to run.

    It is the clock's time that counts, not the processor's: waiting for a journal, a slow disk or the
    interpreter's lock is work too, so that the busier others are, the less of it is done. `longest_rest_s`
    bounds the pause after one call that took very long, such as the unlink of a huge file.

    One thread steps; any thread may stop it, also in the middle of a pause.
    """

    def __init__(self, work_s: float = 0.002, rest: float = 9.0, longest_rest_s: float = 10.0) -> None:
        self._work_s = work_s
        self._rest = rest
        self._longest_rest_s = longest_rest_s
        self._stopping = threading.Event()
        self._began = time.monotonic()

    def begin(self) -> None:
        """Start a unit of work now; the time since the last step was none."""
        self._began = time.monotonic()

    def step(self) -> None:
        """Pause where the share is used up; Stopped as soon as `stop` was called."""
        if self._stopping.is_set():
            raise Stopped
        worked = time.monotonic() - self._began
        if worked < self._work_s:
            return
        if self._stopping.wait(min(worked * self._rest, self._longest_rest_s)):
            raise Stopped
        self._began = time.monotonic()

    def stop(self) -> None:
        """End the work at its next step, for good."""
        self._stopping.set()


class Rarely:
    """Bounds how often one thing is done that others can make necessary as often as they like.

    The first time at once, then `least_s` later at the earliest, and twice as long after each further time, up to
    `most_s`. After twice that without any, it begins anew.
    """

    def __init__(self, least_s: float, most_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._least_s = least_s
        self._most_s = most_s
        self._clock = clock
        self._pause_s = least_s
        self._last: float | None = None

    def may(self) -> bool:
        """Tell whether it may be done now, which then counts as done."""
        now = self._clock()
        waited = None if self._last is None else now - self._last
        if waited is not None and waited < self._pause_s:
            return False
        calm = waited is None or waited > 2 * self._most_s
        self._pause_s = self._least_s if calm else min(2 * self._pause_s, self._most_s)
        self._last = now
        return True
