"""Deleted volumes, and the thread that erases them while nobody waits.

A delete is one rename into the trash; its bytes are given back later, at the pace of `pace.Pace`. Nothing is
synced while erasing: erased trash that a power cut brings back is erased again.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count

import structlog

from provisioner.directories import open_directory, opened
from provisioner.erasing import Obstacle, erase
from provisioner.errors import NotDurable
from provisioner.linux.renameat2 import rename_noreplace
from provisioner.names import entry_for
from provisioner.pace import Pace, Paced, Stopped

log = structlog.get_logger(__name__)

_RECORD = "volume.json"
_DATA = "data"

_RETRY_FIRST_S = 60.0
_RETRY_LAST_S = 3600.0

# How long an entry waits for its `wake` before the eraser syncs it itself: whoever deletes may never come again.
_HOLD_S = 60.0

# An entry that somebody still writes to could keep the eraser for ever: others get their turn after so many steps.
_STEPS_A_TURN = 100_000

_DEFER_S = 1.0

# A thread that waits for a dead disk cannot be ended; whoever stops the trash has other things to do.
_STOP_S = 10.0


class _TurnOver(Exception):
    """The entry had its share; others are next."""


@dataclass(slots=True)
class _Wait:
    """Why an entry is not erased now: `until` is of the trash's clock, `tries` are the failed ones."""

    until: float
    tries: int = 0
    obstacles: list[Obstacle] = field(default_factory=list)


class Trash:
    """The trash of one pool.

    `erased` is told each entry that is gone, by the eraser's thread; it may be told of one twice, or of one that it
    does not know. `settle` makes the renames into the trash survive a power cut, or raises NotDurable. `dismantle`
    takes apart what an entry has besides files, given its directory, and says False while the kernel is not done with
    it: such an entry is asked again soon. `pace` belongs to this trash alone, for `stop` ends it.
    """

    def __init__(
        self,
        trash_dir_fd: int,
        erased: Callable[[str], None],
        settle: Callable[[], None],
        pace: Pace | None = None,
        *,
        dismantle: Callable[[int], bool] = lambda _entry_fd: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the directory anew, so that nobody can close it under a thread that still works in it."""
        self._fd = open_directory(".", trash_dir_fd)
        self._erased = erased
        self._settle = settle
        self._dismantle = dismantle
        self._pace = pace or Pace()
        self._clock = clock
        self._guard = threading.Lock()
        self._numbers = count()
        self._waits: dict[str, _Wait] = {}
        self._woken = threading.Event()
        self._stopping = False
        self._failure = ""
        self._thread = threading.Thread(target=self._run, name="eraser", daemon=False)

    def take(self, src_dir_fd: int, name: str) -> str:
        """Rename `name` from `src_dir_fd` into the trash and give the entry's name, unique for ever.

        Nothing is synced, and the eraser leaves the entry alone until `wake(entry)`, or a sync of its own: a rename
        that a power cut takes back must bring back a whole volume.
        """
        for n in self._numbers:
            entry = entry_for(name, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{n}")
            if self._renamed(src_dir_fd, name, entry):
                return entry
        raise AssertionError  # the numbers do not end

    def _renamed(self, src_dir_fd: int, name: str, entry: str) -> bool:
        """Rename under the name `entry`, held back from the eraser; False where the trash has that already."""
        with self._guard:
            self._waits[entry] = _Wait(self._clock() + _HOLD_S)
        try:
            rename_noreplace(name, entry, src_dir_fd=src_dir_fd, dst_dir_fd=self._fd)
        except OSError as error:
            with self._guard:
                del self._waits[entry]
            if error.errno == errno.EEXIST:
                return False
            raise
        return True

    def entries(self) -> list[str]:
        """List what waits to be erased, oldest and newest mixed."""
        with opened(".", self._fd) as fd:
            return os.listdir(fd)

    @property
    def obstacles(self) -> dict[str, list[Obstacle]]:
        """What could not be erased at the last try, by entry; each is tried again, at last once an hour."""
        with self._guard:
            return {entry: list(wait.obstacles) for entry, wait in self._waits.items() if wait.obstacles}

    def held(self) -> list[str]:
        """List the entries that wait for their `wake`: no sync is known to have made them safe."""
        with self._guard:
            return [entry for entry, wait in self._waits.items() if not wait.tries]

    def wake(self, entry: str | None = None) -> None:
        """Let the eraser begin with an entry that is safe in the trash; without a name, with all of them."""
        with self._guard:
            held = [entry] if entry else [name for name, wait in self._waits.items() if not wait.tries]
            for name in held:
                self._waits.pop(name, None)
        self._woken.set()

    def start(self) -> None:
        """Begin to erase, with what was taken before and what earlier processes left."""
        self.wake()
        self._thread.start()

    def stop(self) -> None:
        """End the thread at its next step, in the middle of an entry too; the next start goes on there."""
        self._stopping = True
        self._pace.stop()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)
        if self._thread.is_alive():
            log.warning("eraser still waits for the disk")
            return  # it keeps its descriptor
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def erase_all(self) -> None:
        """Try every entry once, here and now; for tests and tools, while no thread runs."""
        self._pace.begin()
        for entry in self.entries():
            self._try(entry, self._pace)

    def _run(self) -> None:
        while not self._stopping:
            self._woken.clear()
            try:
                pause = 0.0 if self._round() else self._pause_s()
                self._failure = ""
            except Stopped:
                return
            except Exception as error:  # noqa: BLE001  a bug here must not end in a trash that never empties
                self._log_failure(error)
                pause = _RETRY_FIRST_S
            self._woken.wait(pause)

    def _log_failure(self, error: Exception) -> None:
        """Log what is no entry's fault, such as a disk that is gone, once until it changes."""
        if repr(error) != self._failure:
            self._failure = repr(error)
            log.error("eraser failed; it tries again", exc_info=error)

    def _round(self) -> bool:
        """Try each entry that is due; True where one needs another turn."""
        unfinished = False
        for entry in self._due():
            self._pace.begin()
            try:
                self._try(entry, _Turn(self._pace))
            except _TurnOver:
                unfinished = True
        return unfinished

    def _due(self) -> list[str]:
        """List the entries whose time has come; forget those that resisted and are not there any more."""
        entries = self.entries()
        self._release(entries)
        now, there = self._clock(), set(entries)
        with self._guard:
            for entry, wait in list(self._waits.items()):
                if wait.until <= now and wait.tries and entry not in there:
                    del self._waits[entry]
            return [entry for entry in entries if entry not in self._waits or self._waits[entry].until <= now]

    def _release(self, there: list[str]) -> None:
        """Sync what was held for long, and was `there` before the sync; what cannot be synced is held on."""
        now = self._clock()
        with self._guard:
            overdue = [entry for entry, wait in self._waits.items() if wait.until <= now and not wait.tries]
            for entry in overdue:
                self._waits[entry] = _Wait(now + _HOLD_S)
        if not overdue:
            return
        try:
            self._settle()
        except NotDurable as error:
            log.warning("deleted volumes are kept until they can be synced", entries=len(overdue), reason=str(error))
            return
        for entry in set(overdue).intersection(there):
            self.wake(entry)

    def _pause_s(self) -> float | None:
        """Seconds until the next entry is due; None where nothing waits for a time."""
        with self._guard:
            times = [wait.until for wait in self._waits.values()]
        return max(0.0, min(times) - self._clock()) if times else None

    def _try(self, entry: str, pace: Paced) -> None:
        """Erase an entry; tell whoever waits for its room, or remember why not."""
        try:
            if not self._dismantled(entry):
                self._defer(entry)
                return
            obstacles = _erase_entry(self._fd, entry, pace)
        except OSError as error:
            obstacles = [Obstacle("", error.errno or errno.EIO, error.strerror or str(error))]
        if obstacles:
            self._obstructed(entry, obstacles)
            return
        with self._guard:
            self._waits.pop(entry, None)
        self._erased(entry)
        log.debug("erased", entry=entry)

    def _dismantled(self, entry: str) -> bool:
        try:
            entry_fd = open_directory(entry, self._fd)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return True  # not a directory: nothing but a name to unlink
            raise
        try:
            return self._dismantle(entry_fd)  # which may miss something as well: then it is not done
        finally:
            os.close(entry_fd)

    def _defer(self, entry: str) -> None:
        with self._guard:
            before = self._waits.get(entry)
            self._waits[entry] = _Wait(self._clock() + _DEFER_S, before.tries if before else 1)

    def _obstructed(self, entry: str, obstacles: list[Obstacle]) -> None:
        with self._guard:
            before = self._waits.get(entry)
            tries = before.tries + 1 if before else 1
            self._waits[entry] = _Wait(self._clock() + retry_delay_s(tries), tries, obstacles)
        if before is None or before.obstacles != obstacles:
            first = obstacles[0]
            log.warning(
                "trash cannot be erased", entry=entry, path=first.path, reason=first.message, obstacles=len(obstacles)
            )


class _Turn:
    """A pace that ends an entry's turn."""

    def __init__(self, pace: Paced) -> None:
        self._pace = pace
        self._left = _STEPS_A_TURN

    def step(self) -> None:
        """Step; _TurnOver where the turn is used up."""
        self._left -= 1
        if self._left < 0:
            raise _TurnOver
        self._pace.step()


def retry_delay_s(tries: int) -> float:
    """Seconds until an entry is tried again that failed `tries` times: a minute, doubled up to an hour."""
    return min(_RETRY_FIRST_S * 2.0 ** min(tries - 1, 10), _RETRY_LAST_S)


def _erase_entry(trash_fd: int, entry: str, pace: Paced) -> list[Obstacle]:
    """Erase one entry, its data first and its record last: it says how much room is held until all is gone.

    Directories of the data are moved about within it only, so that a process that still sits in one of them
    never gets to see what lies above the volume.
    """
    try:
        entry_fd = open_directory(entry, trash_fd)
    except FileNotFoundError:
        return []
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        os.unlink(entry, dir_fd=trash_fd)
        return []
    try:
        obstacles = _erase_data(entry_fd, pace)
        for keep in (frozenset({_RECORD}), frozenset[str]()):
            obstacles = obstacles or erase(entry_fd, pace, keep)
    finally:
        os.close(entry_fd)
    if not obstacles:
        os.rmdir(entry, dir_fd=trash_fd)
    return obstacles


def _erase_data(entry_fd: int, pace: Paced) -> list[Obstacle]:
    try:
        data_fd = open_directory(_DATA, entry_fd)
    except OSError:
        return []  # not there, or no directory of ours: erasing the rest meets it again, and says so
    try:
        return [replace(found, path=f"{_DATA}/{found.path}") for found in erase(data_fd, pace)]
    finally:
        os.close(data_fd)
