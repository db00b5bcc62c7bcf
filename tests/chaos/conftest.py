"""Lanes for the matrix: started once, two wide."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.chaos.lane import Lane
from tests.chaos.matrix import Matrix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_WIDTH = 2


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    """Two lanes; the machine's two cores share the work."""
    with _started("ext4", tmp_path_factory) as matrix:
        yield matrix


@pytest.fixture(scope="module")
def matrix_of(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    """The same, on disks of the kind that is the parameter."""
    with _started(request.param, tmp_path_factory) as matrix:
        yield matrix


@pytest.fixture
def tell(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], record_property: Callable[[str, object], None]
) -> Callable[[str], None]:
    """Say how far a suite is, as it goes; at its end where a worker of xdist cannot print."""

    def told(line: str) -> None:
        if hasattr(request.config, "workerinput"):
            record_property("note", line)
            return
        with capsys.disabled():
            print(f"\n{line}")

    return told


@contextmanager
def _started(disk: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    with ExitStack() as stack:
        lanes = []
        for _ in range(_WIDTH):
            lane = Lane(tmp_path_factory.mktemp("lane"), disk)
            stack.callback(lane.close)
            lanes.append(lane)
        yield Matrix(lanes)
