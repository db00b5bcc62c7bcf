"""The pace of background work: it rests, it stops, and idle time is no work."""

from __future__ import annotations

import threading
import time

import pytest

from provisioner.pace import Pace, Rarely, Stopped

FOR_EVER = 1e6


def test_it_rests_in_proportion_to_the_work() -> None:
    """Never shorter: how much longer is up to the machine."""
    pace = Pace(work_s=0.0, rest=3.0)
    pace.begin()
    began = time.monotonic()
    while time.monotonic() - began < 0.01:
        pass
    worked = time.monotonic() - began
    pace.step()
    assert time.monotonic() - began >= worked * 4


def test_it_does_not_rest_before_a_slice_is_full() -> None:
    pace = Pace(work_s=FOR_EVER, rest=FOR_EVER, longest_rest_s=FOR_EVER)
    for _ in range(1000):
        pace.step()


def test_time_before_the_work_is_none() -> None:
    pace = Pace(work_s=FOR_EVER, rest=FOR_EVER, longest_rest_s=FOR_EVER)
    pace._began -= 2 * FOR_EVER  # idle for very long
    pace.begin()
    pace.step()


def test_a_rest_is_bounded() -> None:
    pace = Pace(work_s=0.0, rest=FOR_EVER, longest_rest_s=0.01)
    pace._began -= FOR_EVER
    pace.step()


def test_it_stops_at_the_next_step_for_good() -> None:
    pace = Pace()
    pace.step()
    pace.stop()
    for _ in range(2):
        with pytest.raises(Stopped):
            pace.step()


def test_it_stops_in_the_middle_of_a_rest() -> None:
    pace, stopped = Pace(work_s=0.0, rest=FOR_EVER, longest_rest_s=FOR_EVER), threading.Event()

    def work() -> None:
        pace._began -= 1
        try:
            pace.step()
        except Stopped:
            stopped.set()

    worker = threading.Thread(target=work)
    worker.start()
    pace.stop()
    assert stopped.wait(60)
    worker.join()


class Clock:
    """A clock that stands until it is set."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def done_within(rarely: Rarely, clock: Clock, seconds: int) -> list[float]:
    """Give the moments at which it may be done, where that is wanted each second."""
    began, done = clock.now, []
    for second in range(seconds):
        clock.now = began + second
        if rarely.may():
            done.append(clock.now - began)
    return done


def test_what_is_wanted_all_the_time_is_done_ever_more_rarely() -> None:
    clock = Clock()
    assert done_within(Rarely(2, 30, clock), clock, 120) == [0, 2, 6, 14, 30, 60, 90]


def test_after_a_calm_while_it_is_done_at_once_and_soon_again() -> None:
    clock = Clock()
    rarely = Rarely(2, 30, clock)
    assert len(done_within(rarely, clock, 61)) == 6
    clock.now += 61
    assert done_within(rarely, clock, 8) == [0, 2, 6]
