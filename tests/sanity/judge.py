"""csi-sanity run as a program, and its report."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from tests.support.ginkgo import Verdict, read_specs
from tests.support.patience import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

VOLUME_BYTES = 320 << 20  # small, so that any disk can promise it, and more than the smallest XFS
EXPANDED_BYTES = 640 << 20
LONGEST_RUN_S = 180 * PATIENCE
SECRET = "tell-nobody-7f3a"  # noqa: S105  a word to look for in logs
SECRET_FIELDS = (
    "CreateVolumeSecret",
    "DeleteVolumeSecret",
    "ControllerValidateVolumeCapabilitiesSecret",
    "NodeStageVolumeSecret",
    "NodePublishVolumeSecret",
    "ControllerExpandVolumeSecret",
)


def run_judge(program: Path, endpoint: str, tmp: Path, *options: str) -> Verdict:
    """Run every spec against `endpoint`. The judge itself makes and removes the targets below `tmp`.

    options: more of the judge's own.

    Every call that can carry a secret carries one.
    """
    report, secrets = tmp / "report.json", tmp / "secrets.yaml"
    secrets.write_text(json.dumps({field: {"word": SECRET} for field in SECRET_FIELDS}))
    done = subprocess.run(
        [
            program,
            f"--csi.endpoint={endpoint}",
            f"--csi.mountdir={tmp}/mount",
            f"--csi.stagingdir={tmp}/staging",
            f"--csi.testvolumesize={VOLUME_BYTES}",
            f"--csi.testvolumeexpandsize={EXPANDED_BYTES}",
            f"--csi.secrets={secrets}",
            f"--ginkgo.json-report={report}",
            "--ginkgo.no-color",
            *options,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONGEST_RUN_S,
        check=False,
    )
    assert report.exists(), f"the judge left no report:\n{done.stdout}"
    return Verdict(done.returncode, read_specs(report), done.stdout)
