"""Manifests that several tests apply."""

from __future__ import annotations

from typing import Any

from tests.cluster.lab.archives import BUSYBOX_IMAGE

TOPOLOGY_KEY = "topology.local-path.csi.dev/node"
CLASS = "local-path"
SMALL_CLASS = "local-path-small"
SUBVOLUME_CLASS = "local-path-subvolume"
IMAGE_CLASS = "local-path-image"
XFS_CLASS = "local-path-image-xfs"
DISPOSABLE_CLASS = "local-path-disposable"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
MOUNT = "/data"


def claim(
    name: str, size: str = "64Mi", storage_class: str = CLASS, mode: str = "ReadWriteOnce", node: str = ""
) -> dict[str, Any]:
    """Give a claim; with a node it looks as if the scheduler had chosen that one, and needs no pod to be bound."""
    metadata: dict[str, Any] = {"name": name}
    if node:
        metadata["annotations"] = {SELECTED_NODE: node}
    spec = claim_spec(size, storage_class, mode)
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def claim_spec(size: str = "64Mi", storage_class: str = CLASS, mode: str = "ReadWriteOnce") -> dict[str, Any]:
    """Give what a claim or a template of one wants."""
    return {"accessModes": [mode], "storageClassName": storage_class, "resources": {"requests": {"storage": size}}}


def pod(name: str, *claims: str, node: str = "", script: str = "exec sleep 100000", **spec: Any) -> dict[str, Any]:
    """Give a pod that has its first claim at /data and the others at /data1, /data2, ..."""
    names = [f"{MOUNT}{number or ''}" for number in range(len(claims))]
    volumes = [{"name": f"v{at}", "persistentVolumeClaim": {"claimName": one}} for at, one in enumerate(claims)]
    mounts = [{"name": f"v{at}", "mountPath": path} for at, path in enumerate(names)]
    given: dict[str, Any] = {"containers": [container(script, mounts)], "volumes": volumes, **unhurried(), **spec}
    if node:
        given["nodeSelector"] = {"kubernetes.io/hostname": node}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": given}


def container(script: str, mounts: list[dict[str, Any]]) -> dict[str, Any]:
    """Give a container that runs a shell script."""
    return {
        "name": "main",
        "image": BUSYBOX_IMAGE,
        "imagePullPolicy": "Never",
        "command": ["sh", "-ec", script],
        "volumeMounts": mounts,
    }


def unhurried() -> dict[str, Any]:
    """Give what lets a pod end at once."""
    return {"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": False, "enableServiceLinks": False}
