"""The chart, as helm installs it, with the disks of these nodes as its pools."""

from __future__ import annotations

import json

from tests.cluster.lab.commands import run
from tests.cluster.lab.lifecycle import kubectl
from tests.cluster.lab.places import entering
from tests.cluster.lab.pools import disks
from tests.cluster.lab.site import ADMIN, FOLDER, HUB, NAMESPACE, ROOT, Node, nodes

HELM = ROOT / ".cache/helm/helm"
CHART = ROOT / "deploy/chart/csi-local-path"


def install(*more: str) -> None:
    """Install the chart, or upgrade what is installed; returns when all its pods are ready. more: flags of helm."""
    if not run(*kubectl("get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name")):
        run(*kubectl("create", "namespace", NAMESPACE))
        run(*kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=privileged"))
    values = FOLDER / "values.json"
    values.write_text(json.dumps(_values()))
    helm = [*entering(HUB, "net"), str(HELM), f"--kubeconfig={ADMIN}", f"--namespace={NAMESPACE}"]
    where = [f"--repository-cache={FOLDER}/helm", f"--repository-config={FOLDER}/helm/repositories.yaml"]
    flags = ["--install", "--wait", "--timeout=180s", f"--values={values}"]
    run(*helm, *where, "upgrade", "csi-local-path", str(CHART), *flags, *more, patience_s=240)


def _values() -> dict[str, object]:
    return {
        "hostPaths": ["/mnt/disks"],
        "pools": _pools(Node(1)),
        "nodes": [{"match": node.name, "pools": _pools(node)} for node in nodes()],
        "classes": [
            {"name": "local-path", "default": True},
            {"name": "local-path-small", "parameters": {"pool": "small"}},
            {"name": "local-path-second", "parameters": {"pool": "second"}},
            {"name": "local-path-image", "parameters": {"backend": "image", "enforce": "required"}},
            {"name": "local-path-disposable", "parameters": {"onNodeGone": "delete"}},
            {"name": "local-path-immediate", "volumeBindingMode": "Immediate"},
        ],
        # A test shall not wait for what is otherwise given minutes. Agents renew their Leases once a minute, so the
        # first of these must not be less.
        "controller": {"settings": {"nodeDownRescheduleSeconds": 90, "nodeGoneGraceSeconds": 20}},
        "provisioner": {"capacity": {"pollInterval": "10s"}},
    }


def _pools(node: Node) -> list[dict[str, object]]:
    return [
        {"name": disk.name, "path": str(disk.path), "init": "if-empty", "requireMount": True} for disk in disks(node)
    ]
