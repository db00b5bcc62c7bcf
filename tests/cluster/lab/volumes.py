"""What lies on the disks of the nodes, seen from outside of the cluster."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from tests.cluster.lab.places import pid_of
from tests.cluster.lab.pools import disks
from tests.cluster.lab.site import Node, nodes


def root(node: Node) -> Path:
    """Give the root of a node's filesystem."""
    return Path(f"/proc/{pid_of(node.name)}/root")


def volumes_on(node: Node) -> set[str]:
    """Name the volumes on all disks of a node."""
    found: set[str] = set()
    for disk in disks(node):
        folder = root(node) / disk.path.relative_to("/") / ".csi-local-path/volumes"
        found.update(os.listdir(folder))
    return found


def record_of(node: Node, name: str) -> dict[str, Any]:
    """Give the record of a volume on a node, whichever disk it lies on."""
    for disk in disks(node):
        file = root(node) / disk.path.relative_to("/") / f".csi-local-path/volumes/{name}/volume.json"
        if file.exists():
            return dict(json.loads(file.read_bytes()))
    raise AssertionError(f"{name} lies on no disk of {node.name}")


def all_volumes() -> set[str]:
    """Name the volumes of all nodes."""
    return set().union(*map(volumes_on, nodes()))


def mounts_in(node: Node) -> set[str]:
    """Give the places at which a node's kubelet has volumes of CSI drivers mounted."""
    return {path for path in _mount_points(node) if "/volumes/kubernetes.io~csi/" in path}


def is_staged(node: Node, volume_id: str) -> bool:
    """Tell whether a node's kubelet has a volume staged, which outlasts its last pod a moment."""
    folder = hashlib.sha256(volume_id.encode()).hexdigest()
    return any(path.endswith(f"/{folder}/globalmount") for path in _mount_points(node))


def _mount_points(node: Node) -> list[str]:
    table = Path(f"/proc/{pid_of(node.name)}/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in table]
