import pytest

from tests.support.kinds import Tally, kind_of


def tally(*outcomes: tuple[str, str]) -> Tally:
    counted = Tally()
    for nodeid, outcome in outcomes:
        counted.add(nodeid, outcome, "no such filesystem" if outcome == "skipped" else "")
    return counted


def test_the_kind_is_the_folder() -> None:
    assert kind_of("tests/unit/test_x.py::test_y[a/b]") == "unit"
    assert kind_of("tests/linux/mounts/test_x.py::test_y") == "linux"


@pytest.mark.parametrize("nodeid", ["tests/test_x.py::test_y", "tests/other/test_x.py::test_y", "csi/x.py::y"])
def test_a_test_outside_of_the_kinds_is_refused(nodeid: str) -> None:
    with pytest.raises(pytest.UsageError, match="tests lie in tests/KIND/"):
        kind_of(nodeid)


def test_lines_count_by_kind_and_say_why_tests_were_skipped() -> None:
    counted = tally(
        ("tests/linux/t.py::a", "skipped"),
        ("tests/linux/t.py::b", "skipped"),
        ("tests/unit/t.py::c", "passed"),
    )
    assert list(counted.lines()) == [
        "unit: 1 passed, 0 failed, 0 skipped",
        "linux: 0 passed, 0 failed, 2 skipped",
        "    2 skipped: no such filesystem",
    ]


def test_a_kind_that_ran_nothing_or_skipped_wholly_is_missing() -> None:
    counted = tally(("tests/linux/t.py::a", "skipped"), ("tests/unit/t.py::c", "failed"))
    assert counted.missing(["unit", "linux", "grpc"]) == [
        "linux: all 1 tests were skipped",
        "grpc: no test ran",
    ]


def test_a_pattern_is_missing_unless_a_test_of_that_id_ran() -> None:
    counted = tally(("tests/linux/t.py::a[x on y]", "failed"), ("tests/linux/t.py::a[z on y]", "skipped"))
    assert counted.missing([], [r"t\.py::a\[x on y\]"]) == []
    assert counted.missing([], [r"\[z on y\]"]) == [r"\[z on y\]: no test ran"]


def test_the_table_is_what_ci_adds_up() -> None:
    counted = tally(("tests/unit/t.py::a", "passed"), ("tests/unit/t.py::b", "failed"))
    assert counted.table() == "unit 1 1 0\n"
