"""One operation a volume at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from provisioner.errors import OperationPending
from provisioner.operations import Operations


def test_a_second_claim_is_refused_until_the_first_ends() -> None:
    operations = Operations()
    with operations.claim("a"), operations.claim("b"):
        for taken in "ab":
            with pytest.raises(OperationPending, match=f"volume {taken}"), operations.claim(taken):
                pytest.fail("claimed twice")
    with operations.claim("a"):
        pass


def test_a_refused_claim_leaves_the_first_in_place() -> None:
    operations = Operations()
    with operations.claim("a"):
        for _ in range(2):
            with pytest.raises(OperationPending), operations.claim("a"):
                pass


def test_a_failed_operation_lets_its_claim_go() -> None:
    operations = Operations()
    with pytest.raises(ZeroDivisionError), operations.claim("a"):
        raise ZeroDivisionError
    with operations.claim("a"):
        pass


def test_one_of_many_threads_gets_the_claim() -> None:
    operations, begin, end = Operations(), Barrier(8), Barrier(8)

    def claim(_: int) -> bool:
        begin.wait()
        try:
            with operations.claim("a"):
                end.wait()  # all others have asked by now
        except OperationPending:
            end.wait()
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        for _ in range(20):
            assert sum(threads.map(claim, range(8))) == 1
