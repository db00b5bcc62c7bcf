"""Threads that serve calls: how many work at once, and what makes up for those that are stuck."""

from __future__ import annotations

import threading
import time
from concurrent.futures import wait
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from csi.server.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENT_S = 30.0


class Busy:
    """Calls that last until they are let go; `most` counts how many there were at once."""

    def __init__(self) -> None:
        self.most = 0
        self._now = 0
        self._guard = threading.Lock()
        self.let_go = threading.Event()

    def __call__(self) -> None:
        with self._guard:
            self._now += 1
            self.most = max(self.most, self._now)
        assert self.let_go.wait(PATIENT_S)
        with self._guard:
            self._now -= 1


@contextmanager
def busy() -> Iterator[Busy]:
    calls = Busy()
    try:
        yield calls
    finally:
        calls.let_go.set()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_results_and_errors_reach_who_asked() -> None:
    workers = Workers(2)
    assert workers.submit(divmod, 7, 2).result(PATIENT_S) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        workers.submit(divmod, 7, 0).result(PATIENT_S)
    assert [future.result(PATIENT_S) for future in [workers.submit(pow, 2, n) for n in range(20)]] == [
        2**n for n in range(20)
    ]


def test_no_more_than_wanted_work_at_once() -> None:
    workers = Workers(3)
    with busy() as calls:
        futures = [workers.submit(calls) for _ in range(10)]
        until(lambda: calls.most == 3)
        calls.let_go.set()
        assert not wait(futures, PATIENT_S).not_done
    assert calls.most == 3


def test_calls_that_are_stuck_are_made_up_for_but_not_without_end() -> None:
    workers = Workers(2, spare=3, patience_s=0.1)
    with busy() as calls:
        futures = [workers.submit(calls) for _ in range(9)]
        until(lambda: calls.most == 5)
        late = workers.submit(int)
        assert not wait([late], 1.5).done
    assert not wait([*futures, late], PATIENT_S).not_done
    assert calls.most == 5


def test_what_made_up_for_stuck_calls_goes_with_them() -> None:
    workers = Workers(1, spare=4, patience_s=0.1, name="made-up")
    with busy() as calls:
        futures = [workers.submit(calls) for _ in range(4)]
        until(lambda: calls.most == 4)
    assert not wait(futures, PATIENT_S).not_done
    until(lambda: [thread.name for thread in threading.enumerate()].count("made-up") == 1)
    assert workers.submit(int).result(PATIENT_S) == 0


def test_call_that_was_cancelled_while_it_waited_is_never_made() -> None:
    workers = Workers(1)
    with busy() as calls:
        workers.submit(calls)
        made: list[int] = []
        cancelled = workers.submit(made.append, 1)
        assert cancelled.cancel()
        calls.let_go.set()
        workers.submit(int).result(PATIENT_S)
    assert made == []


def test_a_thread_that_is_free_is_used_again() -> None:
    workers = Workers(9, name="used-again")
    for _ in range(20):
        workers.submit(int).result(PATIENT_S)
    # A result is there a moment before its thread is free.
    assert [thread.name for thread in threading.enumerate()].count("used-again") < 4
