"""A sync that fails after the commit: the answer is 'unavailable' until it succeeds, and never 'failed'."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.chaos.scenarios import SCENARIOS
from tests.support.strace import fail

if TYPE_CHECKING:
    from tests.chaos.matrix import Matrix


@pytest.mark.parametrize("scenario", ["create", "expand", "delete"])
def test_an_operation_that_cannot_be_synced_is_unavailable_until_it_can(
    matrix: Matrix, scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    points = matrix.record(scenario, SCENARIOS[scenario].commit)
    syncs = [point.call for point in points if point.committed and (point.call.name, point.fault) == ("fsync", "EIO")]
    assert syncs, "nothing is synced after the commit"
    with matrix.lane() as lane:
        for sync in syncs:
            outcome = lane.let_fail(scenario, fail(sync, "EIO", later_ones_too=True))
            assert outcome.refused[0] == "NotDurable", outcome
            assert outcome.refused_meanwhile[:1] == ["NotDurable"], outcome
            assert outcome.retried is not None, outcome
            assert lane.check(scenario, outcome) == ""
            lane.clean(scenario, outcome.place)
    with capsys.disabled():
        print(f"\n{scenario}: {len(syncs)} syncs after the commit failed, and failed again")
