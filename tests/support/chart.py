"""The chart as helm renders it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/chart/csi-local-path"
POOL = {"name": "default", "path": "/mnt/disk"}

Object = dict[str, Any]

EVERYTHING: dict[str, Any] = {
    "nodeGroups": {"nvme": {"pools": [{"name": "fast", "path": "/nvme"}]}},
    "nodes": [{"match": "big-*", "pools": [POOL]}, {"match": "small", "pools": []}],
    "hostPaths": ["/mnt"],
    "settings": {"ephemeral": {"allow": True, "maxSizePerVolume": "5Gi"}},
    "controller": {"settings": {"nodeDownRescheduleSeconds": 90}},
    "snapshotter": {"enabled": True},
    "networkPolicy": {"metricsFrom": [{"podSelector": {}}]},
    "imagePullSecrets": [{"name": "secret"}],
}
"""Values that leave no part of a template out."""


def helm() -> str:
    """Name the helm that CI uses; made here, in whatever order tests come."""
    subprocess.run([ROOT / ".ci/setup", "helm"], check=True)
    return str(ROOT / ".cache/helm/helm")


def rendered(**values: object) -> list[Object]:
    """Render the chart with values that differ; what helm refuses is a ValueError."""
    command = [helm(), "template", "csi-local-path", str(CHART), "--namespace", "csi-local-path"]
    for name, value in values.items():
        command += ["--set-json", f"{name}={json.dumps(value)}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(done.stderr)
    return [document for document in yaml.safe_load_all(done.stdout) if document]
