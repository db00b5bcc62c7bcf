"""Kubernetes' external-storage suite as judge of the driver in the running cluster."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from pathlib import Path

from tests.cluster.lab.places import entering
from tests.cluster.lab.site import ADMIN, HUB, PROGRAMS, ROOT
from tests.support.ginkgo import Verdict, read_specs

REPORT = ROOT / "build/e2e"
_DRIVER = Path(__file__).with_name("driver.yaml")
_SPECS = "External Storage [Driver: local-path.csi.dev]"
# Populators come with a controller of their own, whose image cannot be had here.
_IMPOSSIBLE = "should provision storage with any volume data source"
_LENGTHY = r"\[(Slow|Serial|Disruptive)\]"
_PROCESSES = 6


def run_suite(*, everything: bool, patience_s: int) -> Verdict:
    """Run the suite; unless everything is wanted, without what is slow or must run alone.

    What it prints goes to build/e2e/log, and its report beside that.
    """
    shutil.rmtree(REPORT, ignore_errors=True)
    REPORT.mkdir(parents=True)
    log = REPORT / "log"
    with log.open("wb") as output:
        done = subprocess.run(
            _command(everything=everything, patience_s=patience_s),
            cwd=REPORT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=patience_s + 60,
            check=False,
        )
    report = REPORT / "report.json"
    text = log.read_text(errors="replace")
    specs = read_specs(report, lambda name: _SPECS in name) if report.exists() else ()
    return Verdict(done.returncode, specs, text)


def summary(verdict: Verdict) -> list[str]:
    """Say how many specs ended how, which failed, and why others skipped themselves."""
    states = Counter(spec.state for spec in verdict.specs if spec.state != "skipped" or spec.why)
    lines = ["external-storage e2e: " + ", ".join(f"{count} {state}" for state, count in sorted(states.items()))]
    reasons = Counter(" ".join(spec.why.split()) for spec in verdict.specs if spec.state == "skipped" and spec.why)
    lines += [f"    {count} skipped: {reason}" for reason, count in reasons.most_common()]
    bad = (spec for spec in verdict.specs if spec.state not in {"passed", "skipped", "pending"})
    return lines + [f"    {spec.state}: {spec.name}" for spec in bad]


def _command(*, everything: bool, patience_s: int) -> list[str]:
    skip = _IMPOSSIBLE if everything else f"{_IMPOSSIBLE}|{_LENGTHY}"
    ginkgo = [str(PROGRAMS / "ginkgo"), f"--procs={_PROCESSES}", "--no-color", f"--timeout={patience_s}s"]
    ginkgo += [r"--focus=External.Storage.*\[Driver: local-path.csi.dev\]", f"--skip={skip}"]
    ginkgo += [f"--output-dir={REPORT}", "--json-report=report.json", str(PROGRAMS.resolve() / "e2e.test")]
    about = [f"-storage.testdriver={_DRIVER}", f"-kubeconfig={ADMIN}", "-provider=skeleton"]
    return [*entering(HUB, "net"), *ginkgo, "--", *about]
