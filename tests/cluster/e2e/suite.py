"""Kubernetes' external-storage suite as judge of the driver in the running cluster."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.e2e.drivers import DRIVER, Backend
from tests.cluster.lab.places import entering
from tests.cluster.lab.site import ADMIN, HUB, PROGRAMS, ROOT
from tests.support.ginkgo import Spec, Verdict, read_specs

REPORTS = ROOT / "build/e2e"
_SPECS = f"External Storage [Driver: {DRIVER}]"
# What cannot run here, by name, and why. Everything else that does not run skips itself and says so.
IMPOSSIBLE = {
    "should provision storage with any volume data source": "a populator's image cannot be had",
    "[Provider:gce,aws,local,azure]": "they stop kubelets by ssh, which nodes of this cluster do not have",
    "should remount stale subpath bind mount after network": "it wants crictl on nodes, for network filesystems",
}
_LENGTHY = r"\[Slow\]"
_PROCESSES = 6


def run_suite(backend: Backend, *, everything: bool, patience_s: int) -> Verdict:
    """Run the suite for a backend; unless everything is wanted, its focus alone, and nothing slow.

    What it prints goes to build/e2e/BACKEND/log, its report and a summary beside that.
    """
    folder = REPORTS / backend.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "driver.json").write_text(json.dumps(backend.definition(), indent=2))
    log = folder / "log"
    with log.open("wb") as output:
        done = subprocess.run(
            _command(folder, "" if everything else backend.focus, lengthy=everything, patience_s=patience_s),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=patience_s + 60,
            check=False,
        )
    report = folder / "report.json"
    specs = read_specs(report, lambda name: _SPECS in name) if report.exists() else ()
    verdict = Verdict(done.returncode, specs, log.read_text(errors="replace"))
    (folder / "summary").write_text("".join(f"{line}\n" for line in summary(backend, verdict)))
    return verdict


def wrong(backend: Backend, verdict: Verdict) -> list[str]:
    """Say what speaks against the driver, or against the suite's having understood what it was told of it."""
    passed = verdict.in_state("passed")
    lines = [] if verdict.exit_status == 0 else [f"{backend.name}: the suite ended with {verdict.exit_status}"]
    lines += [f"{backend.name}: {spec.state}: {spec.name}" for spec in _bad(verdict)]
    missed = [part for part in backend.proof if not any(part in name for name in passed)]
    return lines + [f"{backend.name}: no spec with {part!r} in its name passed" for part in missed]


def summary(backend: Backend, verdict: Verdict) -> list[str]:
    """Say how many specs ended how, which failed, and why others did not run."""
    states = Counter(spec.state for spec in verdict.specs if spec.state != "skipped" or spec.why)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    lines = [f"external-storage e2e, {backend.name}: {counts or 'nothing ran'}"]
    lines += [f"    {count} skipped: {reason}" for reason, count in _reasons(verdict).most_common()]
    return lines + [f"    {spec.state}: {spec.name}" for spec in _bad(verdict)]


def _bad(verdict: Verdict) -> Iterator[Spec]:
    return (spec for spec in verdict.specs if spec.state not in {"passed", "skipped", "pending"})


def _reasons(verdict: Verdict) -> Counter[str]:
    skipped = [spec for spec in verdict.specs if spec.state == "skipped"]
    reasons = Counter(" ".join(spec.why.split()) for spec in skipped if spec.why)
    unasked = [spec for spec in skipped if not spec.why]
    for part, why in IMPOSSIBLE.items():
        reasons[f"{part!r} is left out: {why}"] += sum(part in spec.name for spec in unasked)
    return +reasons


def _command(folder: Path, focus: str, *, lengthy: bool, patience_s: int) -> list[str]:
    skip = "|".join([*map(re.escape, IMPOSSIBLE), *([] if lengthy else [_LENGTHY])])
    ginkgo = [str(PROGRAMS / "ginkgo"), f"--procs={_PROCESSES}", "--no-color", f"--timeout={patience_s}s"]
    asked = rf".*\] {focus} " if focus else ""
    ginkgo += [
        rf"--focus=External.Storage.*\[Driver: {re.escape(DRIVER)}\]{asked}",
        f"--skip={skip}",
        f"--output-dir={folder}",
        "--json-report=report.json",
    ]
    about = [f"-storage.testdriver={folder}/driver.json", f"-kubeconfig={ADMIN}", "-provider=skeleton"]
    return [*entering(HUB, "net"), *ginkgo, str(PROGRAMS.resolve() / "e2e.test"), "--", *about]
