"""What the cluster can say about a failure, short enough to be read."""

from __future__ import annotations

import subprocess

from tests.cluster.lab.lifecycle import kubectl
from tests.cluster.lab.places import ClusterError
from tests.cluster.lab.site import NAMESPACE

_LINES = 40
_WIDTH = 300
_ASKED = (
    ("get", "pods", "-A", "-o", "wide"),
    ("get", "pvc,pv", "-A"),
    ("get", "events", "-A", "--sort-by=.lastTimestamp"),
    ("logs", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=controller", "--all-containers", f"--tail={_LINES}"),
    ("logs", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=node", "-c", "driver", f"--tail={_LINES}"),
)


def evidence() -> str:
    """Give the end of what kubectl says about pods, claims, events and the driver."""
    return "\n".join(f"$ kubectl {' '.join(asked)}\n{_tail(asked)}" for asked in _ASKED)


def _tail(asked: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(kubectl(*asked), capture_output=True, text=True, timeout=20, check=False)
    except (ClusterError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "\n".join(line[:_WIDTH] for line in (done.stdout + done.stderr).splitlines()[-_LINES:])
