"""An API server with the chart applied to it, and those who ask it: agents and controllers, honest or not.

Accounts get a role far wider than the chart's here, so that nothing but a policy can refuse them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import yaml

from tests.cluster.policies.apiserver import ApiServer, Object, running
from tests.support.apiserver import ROOT

NAMESPACE = "csi-local-path"
AGENT = "csi-local-path-node"
CONTROLLER = "csi-local-path-controller"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
SETTLED_S = 30.0


def manifests() -> list[Object]:
    """Give what `kubectl apply -f deploy/manifests` would apply."""
    text = (ROOT / "deploy/manifests/csi-local-path.yaml").read_text()
    return [document for document in yaml.safe_load_all(text) if document]


@contextmanager
def with_policies() -> Iterator[ApiServer]:
    """Run an API server with the chart's manifests, two nodes, and accounts that RBAC lets do anything."""
    with running() as server:
        for document in manifests():
            server.apply(document)
        for name in ("n1", "n2"):
            server.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        server.apply(role("ClusterRole", rules=[{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]))
        accounts = [{"kind": "ServiceAccount", "name": n, "namespace": NAMESPACE} for n in (AGENT, CONTROLLER)]
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "all-of-a-test"}
        server.apply(role("ClusterRoleBinding", roleRef=reference, subjects=accounts))
        settle(server)
        yield server


def role(kind: str, **more: object) -> Object:
    version = "rbac.authorization.k8s.io/v1"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "all-of-a-test"}, **more}


def settle(server: ApiServer) -> None:
    """Wait until the server holds each policy and the wide role: it learns of both by watching."""
    wrong_class = {**storage_class({"none": "such"}), "metadata": {"name": "settling"}}
    tokens = [server.token(NAMESPACE, name) for name in (AGENT, CONTROLLER)]
    end = time.monotonic() + SETTLED_S
    while True:
        answers = [server.ask("POST", f"{LEASES}?dryRun=All", lease("none"), token) for token in tokens]
        answers.append(server.ask("POST", f"{CLASSES}?dryRun=All", wrong_class))
        if all("ValidatingAdmissionPolicy" in answer.message for answer in answers):
            return
        assert time.monotonic() < end, [answer.message for answer in answers]
        time.sleep(0.1)


@dataclass(frozen=True)
class Agent:
    """A node agent's pod: its token, and its Node's uid."""

    node: str
    uid: str
    token: str

    def lease(self, **metadata: object) -> Object:
        """Give its own Lease as it should be, or with other metadata."""
        owner = {"apiVersion": "v1", "kind": "Node", "name": self.node, "uid": self.uid}
        return lease(f"node-{self.node}", ownerReferences=[owner], **metadata)


def lease(name: str, **metadata: object) -> Object:
    spec = {"holderIdentity": name, "leaseDurationSeconds": 60}
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, **metadata},
        "spec": spec,
    }


def storage_class(given: dict[str, str], provisioner: str = "local-path.csi.dev") -> Object:
    head = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "of-a-test"}}
    return {**head, "provisioner": provisioner, "parameters": given}


def pod(api: ApiServer, name: str, account: str, node: str | None) -> Object:
    """Make a pod, on a node or on none yet; nothing runs it."""
    spec: Object = {"serviceAccountName": account, "containers": [{"name": "driver", "image": "none"}]}
    if node:
        spec["nodeName"] = node
    thing = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}
    return api.apply(thing)


def agent_on(api: ApiServer, node: str) -> Agent:
    uid = api.done("GET", f"/api/v1/nodes/{node}")["metadata"]["uid"]
    return Agent(node, uid, api.token(NAMESPACE, AGENT, pod(api, f"agent-{node}-{uid}", AGENT, node)))
