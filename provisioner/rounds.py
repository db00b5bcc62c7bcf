"""Work on all pools in the background, again and again: their figures, and what slipped out of limits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

import structlog

from provisioner.errors import PoolUnavailable
from provisioner.measuring import MeasuredDisk, MeasuredPool
from provisioner.pace import Pace, Paced, Stopped

log = structlog.get_logger(__name__)

# A thread that waits for a dead disk cannot be ended; whoever stops it has other things to do.
_STOP_S = 10.0

_STEPS_A_LOOK = 1000


class _WhileThere:
    """A pace that ends the walk over a disk that went: whoever takes it back waits until nobody uses the old one."""

    def __init__(self, pace: Paced, disk: MeasuredDisk) -> None:
        self._pace = pace
        self._disk = disk
        self._steps = 0

    def step(self) -> None:
        """Step; PoolUnavailable where the disk is not there any more."""
        if self._steps % _STEPS_A_LOOK == 0:
            self._disk.check()
        self._steps += 1
        self._pace.step()


class Rounds:
    """Does one kind of work on all pools, one after the other: at the start, then `interval_s` after each end.

    Each kind has its own rounds, so that a long one does not make another late.
    """

    def __init__(
        self,
        work: Callable[[MeasuredPool, Paced], None],
        pools: Callable[[], Iterable[MeasuredPool]],
        interval_s: float,
        pace: Pace | None = None,
        name: str = "rounds",
    ) -> None:
        """work: gets a pool whose descriptors stay open meanwhile. name: of the thread, and in the log."""
        self._work = work
        self._pools = pools
        self._interval_s = interval_s
        self._pace = pace or Pace()
        self._name = name
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=False)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End at the next step; `join` waits for it."""
        self._pace.stop()
        self._stopping.set()

    def join(self) -> None:
        """Wait until it has ended, but not for ever."""
        if self._thread.is_alive():
            self._thread.join(_STOP_S)

    def run_once(self) -> None:
        """Do one round, here and now."""
        for pool in self._pools():
            self._pace.begin()
            try:
                self._work(pool, _WhileThere(self._pace, pool.disk))
            except (OSError, PoolUnavailable) as error:
                log.warning("work on a pool not done", work=self._name, pool=pool.disk.path, error=str(error))

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.run_once()
            except Stopped:
                return
            except Exception:
                log.exception("a round failed; it is tried again", work=self._name)
            self._stopping.wait(self._interval_s)
