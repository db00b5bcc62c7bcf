"""Lanes for the matrix: started once, two wide."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.chaos.lane import Lane
from tests.chaos.matrix import Matrix

if TYPE_CHECKING:
    from collections.abc import Iterator

_WIDTH = 2


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    """Two lanes; the machine's two cores share the work."""
    with ExitStack() as stack:
        lanes = []
        for _ in range(_WIDTH):
            lane = Lane(tmp_path_factory.mktemp("lane"))
            stack.callback(lane.close)
            lanes.append(lane)
        yield Matrix(lanes)
