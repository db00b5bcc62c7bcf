"""The kill and fault matrix: every point of an operation, and what is expected there."""

from __future__ import annotations

import errno
import queue
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.chaos.lane import MARK, Lane, Outcome
from tests.support.strace import SystemCall, fail, kill_before

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

KILL = "KILL"
# Calls of memory, time, threads and signals. All others are points, those that strace cannot name too.
_ELSEWHERE = {
    "brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "futex", "getrandom", "clock_gettime", "gettid",
    "getpid", "uname", "clone", "clone3", "rt_sigaction", "rt_sigprocmask", "sched_yield", MARK,
    "clock_nanosleep", "wait4", "poll",  # of programs that are run: how often depends on how fast they are
}  # fmt: skip
# Section ERRORS of open(2), openat2(2), read(2), write(2), close(2), fsync(2), truncate(2), flock(2), statfs(2).
_INTERRUPTIBLE = {
    "open", "openat", "openat2", "read", "write", "pread64", "pwrite64", "close", "fsync", "fdatasync",
    "ftruncate", "truncate", "flock", "statfs", "fstatfs", "fallocate", "dup2", "dup3",
}  # fmt: skip
# What writes, and so may meet the limit of a quota group: on btrfs changes of the tree as well as data.
_COUNTED = re.compile(r"(mkdir|rmdir|rename|unlink|fchown|fchmod|p?write|fsync)|.*O_CREAT|.*(SUBVOL|SNAP|QGROUP)_")
_FULL = {"OutOfCapacity", "Unavailable"}
_FAMILIES = {"ENOSPC": _FULL, "EDQUOT": _FULL, "EIO": {"Unavailable"}, "EINTR": {"Unavailable"}}
_UNNAMED = "syscall_0x"


@dataclass(frozen=True, slots=True)
class Point:
    """A system call of an operation and what is done to it. committed: it comes after the commit."""

    call: SystemCall
    fault: str
    committed: bool

    @property
    def number(self) -> int:
        """Number of a system call that strace has no name for, else 0."""
        return int(self.call.name.removeprefix("syscall_"), 16) if self.call.name.startswith(_UNNAMED) else 0

    def __str__(self) -> str:
        return f"{self.fault} at {self.call}"


def is_point(call: SystemCall) -> bool:
    """Tell whether a call may touch files, mounts or sockets, rather than memory, time or threads."""
    return call.name not in _ELSEWHERE


def between_marks(calls: Sequence[SystemCall]) -> list[SystemCall]:
    """Give what lies between the begin and the end mark; to the end where a kill left no end mark."""
    marks = [i for i, call in enumerate(calls) if call.name == MARK]
    assert marks, "no begin mark in the trace"
    return list(calls[marks[0] + 1 : marks[1] if len(marks) > 1 else None])


def points_of(recording: Outcome, commit: str, disk: str = "ext4") -> list[Point]:
    """List every point of a recorded operation. commit: a pattern of the call that commits, "" if none does."""
    assert recording.acknowledged is not None, recording
    calls = [call for call in between_marks(recording.calls) if is_point(call)]
    commits = [i for i, call in enumerate(calls) if commit and re.search(commit, call.line)]
    assert not commit or len(commits) == 1, f"{len(commits)} calls look like the commit {commit!r}"
    committed = commits[0] if commits else len(calls)
    points = []
    for i, call in enumerate(calls):
        faults = [KILL, "ENOSPC", "EIO"] + ["EINTR"] * (call.name in _INTERRUPTIBLE)
        faults += ["EDQUOT"] * (disk == "btrfs" and _COUNTED.match(call.line) is not None)
        points += [Point(call, fault, i > committed) for fault in faults]
    # A filter cannot count: it meets the first call of an unnamed kind, and all later ones.
    return [point for point in points if not point.number or point.call.occurrence == 1]


def try_point(lane: Lane, scenario: str, point: Point) -> str:
    """Disturb `scenario` at one point, restart, check; gives what is wrong, '' if nothing."""
    outcome = _disturb(lane, scenario, point)
    while _raced(outcome):
        lane.clean(scenario, outcome.place)
        outcome = _disturb(lane, scenario, point)
    findings = [_not_reached(point, outcome), _wrong_answer(point, outcome)]
    findings.append(lane.check(scenario, outcome))
    lane.clean(scenario, outcome.place)
    wrong = "\n".join(filter(None, findings))
    return f"{point}\n{wrong}\n{outcome.trace}" if wrong else ""


def _raced(outcome: Outcome) -> bool:
    """Tell whether another lane, or anybody, took the same free loop device: then the calls are not the usual ones."""
    return any("LOOP_CONFIGURE" in call.line and call.error == "EBUSY" for call in outcome.calls)


def _disturb(lane: Lane, scenario: str, point: Point) -> Outcome:
    if point.number:
        return lane.deny(scenario, point.number, 0 if point.fault == KILL else getattr(errno, point.fault))
    if point.fault == KILL:
        return lane.disturb(scenario, kill_before(point.call))
    return lane.disturb(scenario, fail(point.call, point.fault))


def _not_reached(point: Point, outcome: Outcome) -> str:
    if outcome.crashed:
        return f"the operation's process crashed: {outcome.crashed}"
    calls = between_marks(outcome.calls)
    if point.fault == KILL:
        wanted = signal.SIGSYS if point.number else signal.SIGKILL
        last = calls[-1].name if calls else ""
        reached = outcome.killed_by == wanted and last == point.call.name
    else:
        reached = any(call.name == point.call.name and call.error == point.fault for call in calls)
    return "" if reached else f"not reached; seen: {[str(call) for call in calls]}"


def _wrong_answer(point: Point, outcome: Outcome) -> str:
    if point.fault == KILL:
        return "" if outcome.acknowledged is None else "acknowledged, though killed"
    if outcome.acknowledged is None and not outcome.refused:
        return "neither acknowledged nor refused"
    if outcome.refused:
        families = {"Unavailable"} if point.committed else _FAMILIES[point.fault]
        if not families & set(outcome.refused):
            return f"wanted {' or '.join(families)}, got {outcome.refused[0]}: {outcome.message}"
        if outcome.retried is None and not point.number:
            return f"the retry was refused: {outcome.refused_again}"
    return ""


class Matrix:
    """Several lanes side by side."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes: queue.SimpleQueue[Lane] = queue.SimpleQueue()
        for lane in lanes:
            self._lanes.put(lane)
        self._width = len(lanes)
        self.disk = lanes[0].disk

    def record(self, scenario: str, commit: str) -> list[Point]:
        """Perform `scenario` once undisturbed and list its points; undisturbed it must check out too."""
        with self.lane() as lane:
            outcome = lane.record(scenario)
            while _raced(outcome):
                lane.clean(scenario, outcome.place)
                outcome = lane.record(scenario)
            assert outcome.acknowledged is not None, f"{outcome.message}\n{outcome.trace}{outcome.crashed}"
            assert outcome.crashed == ""
            assert lane.check(scenario, outcome) == ""
            lane.clean(scenario, outcome.place)
        return points_of(outcome, commit, lane.disk)

    def try_all(self, scenario: str, points: Sequence[Point]) -> list[str]:
        """Try all points; gives what is wrong."""

        def tried(point: Point) -> str:
            with self.lane() as lane:
                return try_point(lane, scenario, point)

        with ThreadPoolExecutor(self._width) as pool:
            return [finding for finding in pool.map(tried, points) if finding]

    @contextmanager
    def lane(self) -> Iterator[Lane]:
        """Hold a lane that nobody else uses."""
        lane = self._lanes.get()
        try:
            yield lane
        finally:
            self._lanes.put(lane)
