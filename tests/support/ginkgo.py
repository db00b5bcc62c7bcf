"""Reports of ginkgo, by which csi-sanity and Kubernetes' own tests say what they found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Spec:
    """One spec as the judge saw it. state: passed, failed, skipped, pending, panicked, ...; why: its message."""

    name: str
    state: str
    why: str


@dataclass(frozen=True)
class Verdict:
    """What a run of the judge gave. output: all that it printed, for a failure's message."""

    exit_status: int
    specs: tuple[Spec, ...]
    output: str

    def in_state(self, *states: str) -> dict[str, str]:
        """Give name and message of the specs in these states."""
        return {spec.name: spec.why for spec in self.specs if spec.state in states}


def read_specs(report: Path, wanted: Callable[[str], bool] = bool) -> tuple[Spec, ...]:
    """Read the specs of a JSON report whose name is wanted; other nodes (set-up, tear-down) are no specs."""
    found = (
        Spec(
            name=" / ".join([*(entry["ContainerHierarchyTexts"] or []), entry["LeafNodeText"]]),
            state=entry["State"],
            why=entry.get("Failure", {}).get("Message", ""),
        )
        for suite in json.loads(report.read_text())
        for entry in suite["SpecReports"]
        if entry["LeafNodeType"] == "It"
    )
    return tuple(spec for spec in found if wanted(spec.name))
