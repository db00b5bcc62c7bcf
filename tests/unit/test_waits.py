"""Which calls wait for a disk that hangs, and which for a program that takes long."""

from __future__ import annotations

import pytest

from provisioner.errors import Unavailable
from provisioner.waits import MOST_CALLS, MOST_PROGRAMS, Waits, for_a_program
from tests.support.crowd import crowd


@pytest.fixture
def waits() -> Waits:
    """Take every wait for a long one."""
    return Waits(hangs_after_s=0.0)


def test_a_disk_hangs_when_too_many_calls_wait_too_long(waits: Waits) -> None:
    with crowd(MOST_CALLS - 1, waits.call):
        assert waits.hang_s() == 0.0
        with crowd(1, waits.call):
            assert waits.hang_s() > 0.0
        assert waits.hang_s() == 0.0
    with crowd(MOST_CALLS, Waits().call):
        assert waits.hang_s() == 0.0


def test_a_call_that_waits_for_a_program_does_not_wait_for_the_disk(waits: Waits) -> None:
    with crowd(MOST_PROGRAMS, waits.call, for_a_program), crowd(MOST_CALLS - 1, waits.call):
        assert waits.hang_s() == 0.0
        with waits.call():
            assert waits.hang_s() > 0.0
            with pytest.raises(Unavailable, match="being made, checked or grown already"), for_a_program():
                pass
            assert waits.hang_s() > 0.0
    with waits.call(), for_a_program():
        pass


def test_after_its_program_a_call_waits_for_the_disk_again(waits: Waits) -> None:
    with crowd(MOST_CALLS - 1, waits.call), waits.call():
        with for_a_program():
            assert waits.hang_s() == 0.0
        assert waits.hang_s() > 0.0


def test_a_call_within_itself_is_one(waits: Waits) -> None:
    with crowd(MOST_CALLS - 1, waits.call), waits.call():
        with waits.call(), for_a_program():
            assert waits.hang_s() == 0.0
        assert waits.hang_s() > 0.0


def test_what_is_no_call_is_not_counted(waits: Waits) -> None:
    with crowd(MOST_PROGRAMS, waits.call, for_a_program), for_a_program():
        assert waits.hang_s() == 0.0
