"""The kill and fault matrix of every operation of the provisioner.

Before each file, mount and ioctl call: SIGKILL; from each: ENOSPC, EIO, EINTR where its man page allows it, and on a
disk that counts what groups use, EDQUOT from what writes. Then a restart, a look at everything, a retry, and another
look.

Limits are those of subvolumes, and in the emulated machine those of projects. That is slow: there, kills alone, and
only before calls that may change something. What a kill between two of them leaves on the disk is the same.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.chaos.matrix import KILL
from tests.chaos.scenarios import LIMITED, SCENARIOS
from tests.support.means import has_project_quotas

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.matrix import Matrix, Point
    from tests.chaos.scenario import Scenario

_DISKS = ["quota on xfs", "quota on ext4"] if has_project_quotas() else ["btrfs"]
_LOOK = re.compile(
    r"(openat(?!.*O_CREAT)|openat2|close|dup|fcntl|lseek|read|pread|readlink|getdents|newfstatat|f?stat|access|faccessat"
    r"|ioctl.*(GETXATTR|TCGETS)|quotactl.*Q_XGET)"
)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_operation_survives_every_kill_and_fault(matrix: Matrix, scenario: str, tell: Callable[[str], None]) -> None:
    _try_all(matrix, scenario, SCENARIOS, tell)


@pytest.mark.parametrize("scenario", LIMITED)
@pytest.mark.parametrize("matrix_of", _DISKS, indirect=True)
def test_a_limit_survives_every_kill_and_fault(matrix_of: Matrix, scenario: str, tell: Callable[[str], None]) -> None:
    _try_all(matrix_of, scenario, LIMITED, tell)


def _try_all(matrix: Matrix, scenario: str, scenarios: dict[str, Scenario], tell: Callable[[str], None]) -> None:
    began = time.monotonic()
    tried = scenarios[scenario]
    points = [point for point in matrix.record(scenario, tried.commit) if re.search(tried.only, point.call.line)]
    if matrix.disk.startswith("quota"):
        points = [point for point in points if _is_kill_before_change(point)]
    assert points
    findings = matrix.try_all(scenario, points)
    counts = Counter(point.fault for point in points)
    told = ", ".join(f"{count} {fault}" for fault, count in counts.items())
    tell(f"{scenario} on {matrix.disk}: {len(points)} points ({told}) in {time.monotonic() - began:.1f} s")
    assert not findings, f"{len(findings)} of {len(points)} points:\n\n" + "\n".join(findings[:10])


def _is_kill_before_change(point: Point) -> bool:
    return point.fault == KILL and not _LOOK.match(point.call.line)
