"""The real csi-provisioner and csi-resizer beside real drivers, with the controller's own token: all as processes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.policies.apiserver import ApiServer, Object
from tests.cluster.policies.world import CONTROLLER, NAMESPACE, manifests
from tests.support.apiserver import PROGRAMS
from tests.support.served import one_pool, served

if TYPE_CHECKING:
    import pytest

NODE = "n1"
TOPOLOGY = "topology.local-path.csi.dev/node"
DRIVER = "local-path.csi.dev"


@contextmanager
def controllers_pod(api: ApiServer, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run what stands in a controller's pod, and a node for it; gives the name of the pod."""
    make_node(api)
    pod = make_pod(api)
    token = api.token(NAMESPACE, CONTROLLER, pod)
    name = pod["metadata"]["name"]
    for key, value in {"POD_NAME": name, "POD_NAMESPACE": NAMESPACE, "NODE_NAME": NODE, "POD_IP": "127.0.0.1"}.items():
        patch.setenv(key, value)
    patch.setenv("NAMESPACE", NAMESPACE)
    patch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    here, there = folder / "node", folder / "controller"
    here.mkdir()
    there.mkdir()
    with ExitStack() as stack:
        patch.setenv("KUBECONFIG", str(api.kubeconfig))
        options = ("--role", "node", "--listen-port", "0", "--http-port", "0")
        stack.enter_context(served(one_pool(here, reserve="0"), here, options=options))
        config = kubeconfig_of(api, token, folder)
        patch.setenv("KUBECONFIG", str(config))
        driver = stack.enter_context(served({}, there, options=("--role", "controller", "--http-port", "0")))
        for sidecar in ("provisioner", "resizer"):
            start(stack, sidecar, driver.socket, config, folder)
        yield name


def make_node(api: ApiServer) -> None:
    """Say of a node what its kubelet would."""
    labels = {TOPOLOGY: NODE}
    api.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "labels": labels}})
    driver = {"name": DRIVER, "nodeID": NODE, "topologyKeys": [TOPOLOGY]}
    head = {"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": NODE}}
    api.apply({**head, "spec": {"drivers": [driver]}})


def make_pod(api: ApiServer) -> Object:
    """Make a pod of the chart's Deployment, by way of a ReplicaSet, as kube-controller-manager would."""
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{CONTROLLER}"
    deployment = api.done("GET", path)
    template = deployment["spec"]["template"]
    meta = {"name": f"{CONTROLLER}-1", "namespace": NAMESPACE, "ownerReferences": [owner(deployment)]}
    spec = {"selector": deployment["spec"]["selector"], "template": template}
    owned = api.apply({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": meta, "spec": spec})
    meta = {"name": f"{CONTROLLER}-1-a", "namespace": NAMESPACE, "ownerReferences": [owner(owned)]}
    container = {"name": "driver", "image": "none"}
    spec = {"nodeName": NODE, "serviceAccountName": CONTROLLER, "containers": [container]}
    return api.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})


def owner(thing: Object) -> Object:
    """Refer to an owner, as controllers do."""
    meta = thing["metadata"]
    head = {"apiVersion": thing["apiVersion"], "kind": thing["kind"], "controller": True}
    return {**head, "name": meta["name"], "uid": meta["uid"]}


def kubeconfig_of(api: ApiServer, token: str, folder: Path) -> Path:
    """Write the administrator's kubeconfig anew, with another token."""
    said = json.loads(api.kubeconfig.read_text())
    said["users"][0]["user"] = {"token": token}
    path = folder / "controller.kubeconfig"
    path.write_text(json.dumps(said))
    return path


def start(stack: ExitStack, sidecar: str, socket: Path, config: Path, folder: Path) -> None:
    """Start a sidecar with the flags that the chart gives it."""
    (deployment,) = (found for found in manifests() if found["kind"] == "Deployment")
    containers = {found["name"]: found for found in deployment["spec"]["template"]["spec"]["containers"]}
    flags = [
        flag.replace("/csi/csi.sock", str(socket)).replace("$(NAMESPACE)", NAMESPACE)
        for flag in containers[sidecar]["args"]
        if not flag.startswith("--http-endpoint")
    ]
    log = stack.enter_context((folder / f"{sidecar}.log").open("wb"))
    command = [str(PROGRAMS / f"csi-{sidecar}"), *flags, f"--kubeconfig={config}"]
    process = subprocess.Popen(command, stdout=log, stderr=log, env=dict(os.environ))
    stack.callback(process.wait)
    stack.callback(process.kill)
