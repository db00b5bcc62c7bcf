"""The matrix itself: it accepts what is right, and notices each kind of wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.chaos.toys import TOYS

if TYPE_CHECKING:
    from tests.chaos.matrix import Matrix


def test_a_careful_operation_passes_at_every_point(matrix: Matrix) -> None:
    points = matrix.record("careful", TOYS["careful"].commit)
    assert len(points) > 40
    assert matrix.try_all("careful", points) == []


@pytest.mark.parametrize(
    ("toy", "said"),
    [
        ("in-place", "half a volume is visible"),
        ("no-sweep", "AssertionError"),
        ("deaf", "the acknowledged volume is lost"),
        ("bare", "got OSError"),
    ],
)
def test_a_careless_operation_is_caught(matrix: Matrix, toy: str, said: str) -> None:
    findings = matrix.try_all(toy, matrix.record(toy, TOYS[toy].commit))
    assert any(said in finding for finding in findings), findings


def test_a_point_that_is_not_reached_is_a_finding(matrix: Matrix) -> None:
    points = matrix.record("careful", TOYS["careful"].commit)
    renames = [point for point in points if point.call.name == "rename"]
    findings = matrix.try_all("in-place", renames)  # which renames nothing
    assert len(findings) == len(renames) > 0
    assert all("not reached" in finding for finding in findings)


def test_cleaning_lets_go_of_a_device_that_no_check_let_go(matrix: Matrix) -> None:
    with matrix.lane() as lane:
        outcome = lane.record("block-publish")
        lane.clean("block-publish", outcome.place)
    shown = [file.read_text() for file in Path("/sys/block").glob("loop*/loop/backing_file")]
    assert [path for path in shown if f"/{outcome.place.name}/pool/" in path] == []
