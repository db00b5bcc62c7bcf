"""The kill and fault matrix of every operation of the provisioner.

Before each file, mount and ioctl call: SIGKILL; from each: ENOSPC, EIO, and EINTR where its man page
allows it. Then a restart, a look at everything, a retry, and another look.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.chaos.scenarios import SCENARIOS

if TYPE_CHECKING:
    from tests.chaos.matrix import Matrix


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_operation_survives_every_kill_and_fault(
    matrix: Matrix, scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    points = matrix.record(scenario, SCENARIOS[scenario].commit)
    findings = matrix.try_all(scenario, points)
    faults = Counter(point.fault for point in points)
    with capsys.disabled():
        told = ", ".join(f"{count} {fault}" for fault, count in faults.items())
        print(f"\n{scenario}: {len(points)} points ({told}) in {time.monotonic() - began:.1f} s")
    assert not findings, f"{len(findings)} of {len(points)} points:\n\n" + "\n".join(findings[:10])
