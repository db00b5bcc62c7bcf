"""The kinds of tests: a marker from the folder, a count of each kind at the end, a failure if one is missing.

`--kinds=unit,grpc` says which kinds a run is meant to hold: it fails if one of them ran nothing, or skipped
every test that it has. `--need=PATTERN`, once for each, says the same of the tests whose id has it. Works the same
under pytest-xdist, whose controller sees the reports of all workers.

A test that has something to tell, how many points it tried or which specs ran, records it as a property named
`note`; notes are printed at the end, whatever happened to the output of the test.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _pytest.terminal import TerminalReporter

KINDS = ("lint", "unit", "contract", "linux", "grpc", "sanity", "cluster", "chaos", "bench")
NEED_ROOT = ("linux", "grpc", "sanity", "cluster", "chaos", "bench")
OUTCOMES = ("passed", "failed", "skipped")


def kind_of(nodeid: str) -> str:
    """Tell a test's kind by its path, `tests/KIND/...`; raises UsageError outside of the known folders."""
    parts = nodeid.split("::", 1)[0].split("/")
    if len(parts) > 2 and parts[0] == "tests" and parts[1] in KINDS:
        return parts[1]
    raise pytest.UsageError(f"{nodeid}: tests lie in tests/KIND/, where KIND is one of {', '.join(KINDS)}")


class Tally:
    """Counts of one run, by kind and outcome, and why tests were skipped."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.reasons: dict[str, Counter[str]] = defaultdict(Counter)
        self.ran: set[str] = set()

    def add(self, nodeid: str, outcome: str, reason: str = "") -> None:
        """Count one test."""
        kind = kind_of(nodeid)
        self.counts[kind][outcome] += 1
        if outcome != "skipped":
            self.ran.add(nodeid)
        if reason:
            self.reasons[kind][reason] += 1

    def lines(self) -> Iterable[str]:
        """Say how many of each kind ran, in the order of KINDS, with the reasons of skipped ones below."""
        for kind in (kind for kind in KINDS if kind in self.counts):
            yield f"{kind}: " + ", ".join(f"{self.counts[kind][outcome]} {outcome}" for outcome in OUTCOMES)
            for reason, times in sorted(self.reasons[kind].items()):
                yield f"    {times} skipped: {reason}"

    def table(self) -> str:
        """Give the counts for a program: `KIND passed failed skipped`, a line each."""
        rows = [[kind, *(str(self.counts[kind][outcome]) for outcome in OUTCOMES)] for kind in self.counts]
        return "".join(" ".join(row) + "\n" for row in rows)

    def missing(self, wanted: Iterable[str], needed: Iterable[str] = ()) -> list[str]:
        """Name what is wrong with the kinds, and the patterns of ids, that were asked for; empty when each ran."""
        wrong = [f"{one}: no test ran" for one in needed if not any(re.search(one, nodeid) for nodeid in self.ran)]
        for kind in wanted:
            counts = self.counts[kind]
            if counts["passed"] + counts["failed"] == 0:
                skipped = counts["skipped"]
                wrong.append(f"{kind}: all {skipped} tests were skipped" if skipped else f"{kind}: no test ran")
        return wrong


class KindsPlugin:
    """Keeps the tally of a run and speaks at its end; lives in the process that prints, never in a worker."""

    def __init__(self, wanted: list[str], needed: list[str], counts_file: Path | None) -> None:
        self.tally = Tally()
        self.wanted = wanted
        self.needed = needed
        self.counts_file = counts_file
        self.notes: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test by its call, or by the set-up that ended it; a failing tear-down counts besides."""
        if report.when == "call":
            self.notes += [str(value) for name, value in report.user_properties if name == "note"]
        if report.failed:
            self.tally.add(report.nodeid, "failed")
        elif report.skipped:
            self.tally.add(report.nodeid, "skipped", _reason(report))
        elif report.when == "call":
            self.tally.add(report.nodeid, "passed")

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Fail a run that looks good but lacks what was asked for."""
        if self.counts_file:
            with self.counts_file.open("a") as file:
                file.write(self.tally.table())
        if self.tally.missing(self.wanted, self.needed) and exitstatus in (
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        ):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        """Print notes and counts."""
        if self.notes:
            terminalreporter.section("notes")
        for line in self.notes:
            terminalreporter.write_line(line)
        terminalreporter.section("tests by kind")
        for line in self.tally.lines():
            terminalreporter.write_line(line)
        for line in self.tally.missing(self.wanted, self.needed):
            terminalreporter.write_line(f"asked for, but {line}", red=True)


def _reason(report: pytest.TestReport) -> str:
    """Give the reason that a skip carries; xfail keeps it elsewhere."""
    if hasattr(report, "wasxfail"):
        return f"expected to fail: {report.wasxfail}"
    where = report.longrepr
    return str(where[2]).removeprefix("Skipped: ") if isinstance(where, (tuple, list)) else str(where)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what the Makefile passes."""
    group = parser.getgroup("kinds of tests")
    group.addoption("--kinds", default="", help="fail unless each of these kinds ran, e.g. unit,grpc")
    group.addoption("--need", action="append", default=[], help="fail unless a test ran whose id has this pattern")
    group.addoption("--counts", type=Path, default=None, help="append `KIND passed failed skipped` to a file")


def pytest_configure(config: pytest.Config) -> None:
    """Count in the process that prints. A run narrowed by -k or -m cannot be asked for what it leaves out."""
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    narrowed = config.option.keyword or config.option.markexpr
    wanted = [] if narrowed else [kind for kind in config.option.kinds.split(",") if kind]
    needed = [] if narrowed else config.option.need
    unknown = set(wanted) - set(KINDS)
    if unknown:
        raise pytest.UsageError(f"--kinds: {', '.join(sorted(unknown))} is none of {', '.join(KINDS)}")
    config.pluginmanager.register(KindsPlugin(wanted, needed, config.option.counts), "kinds")


@pytest.hookimpl(tryfirst=True)  # before -m looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its kind. csi-sanity counts all volumes of its server: it stays on one worker."""
    root = os.geteuid() == 0
    for item in items:
        kind = kind_of(item.nodeid)
        item.add_marker(kind)
        if kind == "sanity":
            item.add_marker(pytest.mark.xdist_group("sanity"))
        if kind in NEED_ROOT and not root:
            item.add_marker(pytest.mark.skip(reason="needs root: it mounts"))
