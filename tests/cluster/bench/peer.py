"""The driver that does nothing, in the cluster: the chart's own Deployment as it runs, with another driver in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster.bench import nothing
from tests.cluster.kube import Kube, Object
from tests.cluster.lab.site import NAMESPACE, nodes
from tests.cluster.manifests import TOPOLOGY_KEY

CLASS = "nothing"
_NAME = "nothing"
_SCRIPT = Path(nothing.__file__)
_PYTHON = "/opt/csi-local-path/bin/python"
_LABELS = {"app": _NAME}
_READY_S = 120.0
_RBAC = "rbac.authorization.k8s.io"


@contextmanager
def peer(kube: Kube) -> Iterator[None]:
    """Have it for the length of a block."""
    deployment = kube.get("Deployment", "csi-local-path-controller", NAMESPACE)
    assert deployment is not None
    made = [*_surroundings(), _deployment(deployment)]
    for manifest in made:
        kube.create(manifest, manifest["metadata"].get("namespace", ""))
    for node in nodes():
        _register(kube, node.name)
    try:
        kube.wait("Deployment", _NAME, _NAME, _is_ready, _READY_S)
        yield
    finally:
        for manifest in reversed(made):
            kube.delete(manifest["kind"], manifest["metadata"]["name"], manifest["metadata"].get("namespace", ""))
        kube.wait_gone("Namespace", _NAME, patience_s=_READY_S)


def _surroundings() -> list[Object]:
    account = {"kind": "ServiceAccount", "name": "default", "namespace": _NAME}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAME}},
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": _NAME},
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [account],
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": _NAME, "namespace": _NAME},
            "data": {_SCRIPT.name: _SCRIPT.read_text()},
        },
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": CLASS},
            "provisioner": nothing.NAME,
            "volumeBindingMode": "WaitForFirstConsumer",
            "allowVolumeExpansion": True,
        },
    ]


def _deployment(chart: Object) -> Object:
    """Give the controllers' Deployment with another driver; sidecars, their flags and their number stay."""
    pod: dict[str, Any] = dict(chart["spec"]["template"]["spec"])
    pod |= {"serviceAccountName": "default", "containers": [_container(one) for one in pod["containers"]]}
    pod.pop("serviceAccount", None)
    pod["topologySpreadConstraints"] = [
        {**one, "labelSelector": {"matchLabels": _LABELS}} for one in pod["topologySpreadConstraints"]
    ]
    pod["volumes"] = [
        {"name": "config", "configMap": {"name": _NAME}} if one["name"] == "config" else one for one in pod["volumes"]
    ]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": _NAME, "namespace": _NAME},
        "spec": {
            "replicas": chart["spec"]["replicas"],
            "selector": {"matchLabels": _LABELS},
            "template": {"metadata": {"labels": _LABELS}, "spec": pod},
        },
    }


def _container(found: Object) -> Object:
    if found["name"] != "driver":
        return found
    probes = {"startupProbe", "livenessProbe", "readinessProbe", "ports", "args"}
    (config,) = (mount["mountPath"] for mount in found["volumeMounts"] if mount["name"] == "config")
    kept = {key: value for key, value in found.items() if key not in probes}
    return kept | {"command": [_PYTHON, f"{config}/{_SCRIPT.name}"]}


def _register(kube: Kube, node: str) -> None:
    """Say that the driver is on a node, as a kubelet would that it had registered with."""
    found = kube.get("CSINode", node)
    assert found is not None
    mine = {"name": nothing.NAME, "nodeID": node, "topologyKeys": [TOPOLOGY_KEY]}
    others = [one for one in found["spec"].get("drivers") or [] if one["name"] != nothing.NAME]
    kube.patch("CSINode", node, {"spec": {"drivers": [*others, mine]}})


def _is_ready(deployment: Object) -> bool:
    return bool(deployment["status"].get("readyReplicas") == deployment["spec"]["replicas"])
