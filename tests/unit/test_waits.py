"""Which calls wait for a disk that hangs, and which for a program that takes long."""

from __future__ import annotations

import threading
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import pytest

from provisioner.errors import Unavailable
from provisioner.waits import MOST_CALLS, MOST_PROGRAMS, Waits, for_a_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

PATIENT_S = 30.0


@contextmanager
def calls(waits: Waits, count: int, wait: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Let calls wait while a block runs."""
    there, let_go = threading.Barrier(count + 1), threading.Event()

    def work() -> None:
        with waits.call(), wait():
            there.wait(PATIENT_S)
            assert let_go.wait(PATIENT_S)
        there.wait(PATIENT_S)

    for _ in range(count):
        threading.Thread(target=work, daemon=True).start()
    there.wait(PATIENT_S)
    try:
        yield
    finally:
        let_go.set()
        there.wait(PATIENT_S)


@pytest.fixture
def waits() -> Waits:
    """Take every wait for a long one."""
    return Waits(hangs_after_s=0.0)


def test_a_disk_hangs_when_too_many_calls_wait_too_long(waits: Waits) -> None:
    with calls(waits, MOST_CALLS - 1, nullcontext):
        assert waits.hang_s() == 0.0
        with calls(waits, 1, nullcontext):
            assert waits.hang_s() > 0.0
        assert waits.hang_s() == 0.0
    with calls(Waits(), MOST_CALLS, nullcontext):
        assert waits.hang_s() == 0.0


def test_a_call_that_waits_for_a_program_does_not_wait_for_the_disk(waits: Waits) -> None:
    with calls(waits, MOST_PROGRAMS, for_a_program), calls(waits, MOST_CALLS - 1, nullcontext):
        assert waits.hang_s() == 0.0
        with waits.call():
            assert waits.hang_s() > 0.0
            with pytest.raises(Unavailable, match="being made, checked or grown already"), for_a_program():
                pass
            assert waits.hang_s() > 0.0
    with waits.call(), for_a_program():
        pass


def test_after_its_program_a_call_waits_for_the_disk_again(waits: Waits) -> None:
    with calls(waits, MOST_CALLS - 1, nullcontext), waits.call():
        with for_a_program():
            assert waits.hang_s() == 0.0
        assert waits.hang_s() > 0.0


def test_a_call_within_itself_is_one(waits: Waits) -> None:
    with calls(waits, MOST_CALLS - 1, nullcontext), waits.call():
        with waits.call(), for_a_program():
            assert waits.hang_s() == 0.0
        assert waits.hang_s() > 0.0


def test_what_is_no_call_is_not_counted(waits: Waits) -> None:
    with calls(waits, MOST_PROGRAMS, for_a_program), for_a_program():
        assert waits.hang_s() == 0.0
