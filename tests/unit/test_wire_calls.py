"""A call that nobody waits for any more says so."""

from __future__ import annotations

from typing import Any

import pytest

from csi.wire.calls import CallContext
from provisioner.errors import Cancelled, DeadlineExceeded


class FakeContext:
    """What CallContext asks of a grpc.ServicerContext."""

    def __init__(self, seconds: float, *, active: bool) -> None:
        self.seconds = seconds
        self.active = active

    def time_remaining(self) -> float:
        """Give the seconds that the caller waits yet."""
        return self.seconds

    def is_active(self) -> bool:
        """Tell whether the caller is there."""
        return self.active


def context(seconds: float, *, active: bool) -> Any:
    return FakeContext(seconds, active=active)


def test_a_caller_that_waits_is_served() -> None:
    CallContext(context(3.0, active=True)).check()


def test_a_caller_that_left_is_not() -> None:
    with pytest.raises(Cancelled):
        CallContext(context(3.0, active=False)).check()


@pytest.mark.parametrize("active", [True, False])
def test_a_passed_deadline_is_told_from_a_caller_that_left(*, active: bool) -> None:
    """The call may end a moment before or after its deadline."""
    with pytest.raises(DeadlineExceeded):
        CallContext(context(0.0, active=active)).check()
