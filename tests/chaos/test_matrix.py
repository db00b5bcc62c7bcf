"""The kill and fault matrix of every operation of the provisioner.

Before each file, mount and ioctl call: SIGKILL; from each: ENOSPC, EIO, EINTR where its man page allows it, and on a
disk that counts what groups use, EDQUOT from what writes. Then a restart, a look at everything, a retry, and another
look.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.chaos.scenarios import LIMITED, SCENARIOS

if TYPE_CHECKING:
    from tests.chaos.matrix import Matrix
    from tests.chaos.scenario import Scenario


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_operation_survives_every_kill_and_fault(
    matrix: Matrix, scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _try_all(matrix, scenario, SCENARIOS, capsys)


@pytest.mark.parametrize("scenario", LIMITED)
@pytest.mark.parametrize("matrix_of", ["btrfs"], indirect=True)
def test_a_limit_survives_every_kill_and_fault(
    matrix_of: Matrix, scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _try_all(matrix_of, scenario, LIMITED, capsys)


def _try_all(
    matrix: Matrix,
    scenario: str,
    scenarios: dict[str, Scenario],
    capsys: pytest.CaptureFixture[str],
) -> None:
    began = time.monotonic()
    tried = scenarios[scenario]
    points = [point for point in matrix.record(scenario, tried.commit) if re.search(tried.only, point.call.line)]
    findings = matrix.try_all(scenario, points)
    counts = Counter(point.fault for point in points)
    with capsys.disabled():
        told = ", ".join(f"{count} {fault}" for fault, count in counts.items())
        print(f"\n{scenario} on {matrix.disk}: {len(points)} points ({told}) in {time.monotonic() - began:.1f} s")
    assert not findings, f"{len(findings)} of {len(points)} points:\n\n" + "\n".join(findings[:10])
