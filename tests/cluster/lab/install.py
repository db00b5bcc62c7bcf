"""The chart, as helm installs it, with the disks of these nodes as its pools."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster.lab.commands import run
from tests.cluster.lab.lifecycle import kubectl
from tests.cluster.lab.places import entering
from tests.cluster.lab.pools import Disk, disks
from tests.cluster.lab.site import ADMIN, FOLDER, HUB, NAMESPACE, ROOT, Node, nodes

HELM = ROOT / ".cache/helm/helm"
# Plain directories are quick, and most tests are about something else.
_ANY_SIZE = {"backend": "directory", "enforce": "besteffort"}
_HELD = {"enforce": "required"}
CHART = ROOT / "deploy/chart/csi-local-path"


def install(*more: str, values: dict[str, object] | None = None, chart: Path = CHART) -> str:
    """Install the chart, or upgrade what is installed; gives what helm says when all its pods are ready.

    more: flags of helm. values: others than `lab_values`. chart: another than that of this work tree.
    """
    if not run(*kubectl("get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name")):
        run(*kubectl("create", "namespace", NAMESPACE))
        run(*kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=privileged"))
    file = FOLDER / "values.json"
    file.write_text(json.dumps(values or lab_values()))
    helm = [*entering(HUB, "net"), str(HELM), f"--kubeconfig={ADMIN}", f"--namespace={NAMESPACE}"]
    where = [f"--repository-cache={FOLDER}/helm", f"--repository-config={FOLDER}/helm/repositories.yaml"]
    flags = ["--install", "--wait", "--timeout=180s", f"--values={file}"]
    return run(*helm, *where, "upgrade", "csi-local-path", str(chart), *flags, *more, patience_s=240)


def lab_values() -> dict[str, object]:
    """Give the values of this cluster: a pool for each disk, a class for each backend that runs here."""
    return {
        "hostPaths": ["/mnt/disks"],
        "pools": _pools(Node(1)),
        "nodes": [{"match": node.name, "pools": _pools(node)} for node in nodes()],
        "classes": [
            {"name": "local-path", "default": True, "parameters": _ANY_SIZE},
            {"name": "local-path-small", "parameters": {"pool": "small", **_ANY_SIZE}},
            {"name": "local-path-second", "parameters": {"pool": "second", **_ANY_SIZE}},
            {"name": "local-path-disposable", "parameters": {"onNodeGone": "delete", **_ANY_SIZE}},
            # Filesystems are subvolumes there, and raw block volumes, which no subvolume can be, are images.
            {"name": "local-path-subvolume", "parameters": {"pool": "btrfs", **_HELD}},
            {"name": "local-path-image", "parameters": {"backend": "image", **_HELD}},
            {"name": "local-path-image-xfs", "parameters": {"backend": "image", "fsType": "xfs", **_HELD}},
            {"name": "local-path-immediate", "volumeBindingMode": "Immediate", "parameters": _ANY_SIZE},
        ],
        "settings": {"ephemeral": {"allow": True, "maxSizePerVolume": "64Mi", "maxSizePerPod": "256Mi"}},
        # A test shall not wait for what is otherwise given minutes. Agents renew their Leases once a minute, so the
        # first of these must not be less.
        "controller": {
            "settings": {
                "nodeDownRescheduleSeconds": 90,
                "nodeGoneGraceSeconds": 20,
                "orphanAgeSeconds": 10,
                "orphanSweepSeconds": 5,
                "waitingClaimsSeconds": 5,
            }
        },
        "provisioner": {"capacity": {"pollInterval": "10s"}},
    }


def _pools(node: Node) -> list[dict[str, object]]:
    return [_pool(disk) for disk in disks(node)]


def _pool(disk: Disk) -> dict[str, object]:
    pool = {"name": disk.name, "path": str(disk.path), "init": "if-empty", "requireMount": True}
    return pool | ({"quota": "enable"} if disk.kind == "btrfs" else {})
