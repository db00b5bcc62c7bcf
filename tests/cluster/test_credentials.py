"""A rooted node has its agent's credentials; what the API server of a whole cluster lets it do with them.

Each rule of RBAC and of the policies is tried in test_rbac and test_lease_policies, without a kubelet.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.cluster.driver import agent
from tests.cluster.kube import Kube, Object
from tests.cluster.lab.commands import run
from tests.cluster.lab.lifecycle import kubectl
from tests.cluster.lab.pki import CA
from tests.cluster.lab.places import entering
from tests.cluster.lab.site import API_URL, HUB, NAMESPACE, PROGRAMS, nodes

NODE_ACCOUNT = "csi-local-path-node"
APPLY = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-")
CREATE = ("create", "--dry-run=server", "-f", "-")  # admission is the same as without, and nothing is changed


class Caller:
    """kubectl with a token and nothing else."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, *arguments: str, given: Object | None = None) -> subprocess.CompletedProcess[str]:
        """Run it; the caller looks whether it was let."""
        command = [*entering(HUB, "net"), str(PROGRAMS / "kubectl"), "--kubeconfig=/dev/null", f"--server={API_URL}"]
        command += [f"--certificate-authority={CA}", f"--token={self._token}", "-n", NAMESPACE, *arguments]
        text = None if given is None else json.dumps(given)
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=30, check=False)


def token(account: str, pod: Object | None) -> str:
    """Give a token as the kubelet has it made for a pod, or one that is bound to none."""
    asked = ["create", "token", account, "-n", NAMESPACE]
    if pod is not None:
        meta = pod["metadata"]
        asked += ["--bound-object-kind=Pod", f"--bound-object-name={meta['name']}", f"--bound-object-uid={meta['uid']}"]
    return run(*kubectl(*asked)).strip()


def lease(name: str, node: Object | None = None, **metadata: Any) -> Object:
    """Give a Lease, owned by a Node where one is given."""
    made: dict[str, Any] = {"name": name, "namespace": NAMESPACE, **metadata}
    if node is not None:
        owner = {"apiVersion": "v1", "kind": "Node", "name": node["metadata"]["name"], "uid": node["metadata"]["uid"]}
        made["ownerReferences"] = [owner]
    spec = {"holderIdentity": "x", "leaseDurationSeconds": 40}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": made, "spec": spec}


def is_forbidden(done: subprocess.CompletedProcess[str]) -> bool:
    """Tell whether the API server refused, by RBAC or by policy."""
    return done.returncode != 0 and "forbidden" in done.stderr.lower()


@pytest.fixture
def rooted(kube: Kube) -> Caller:
    """Give what somebody has who is root on n1."""
    return Caller(token(NODE_ACCOUNT, agent(kube, nodes()[0])))


def node_object(kube: Kube, name: str) -> Object:
    """Give a Node."""
    found = kube.get("Node", name)
    assert found is not None
    return found


def test_node_may_renew_its_own_lease(kube: Kube, rooted: Caller) -> None:
    patched = rooted(*APPLY, given=lease("node-n1", node_object(kube, "n1")))
    assert patched.returncode == 0, patched.stderr


@pytest.mark.parametrize("name", ["node-n2", "controller-0"])
def test_node_may_make_or_change_no_other_lease(kube: Kube, rooted: Caller, name: str) -> None:
    wanted = lease(name, node_object(kube, "n1"))
    for verb in (CREATE, APPLY):
        done = rooted(*verb, given=wanted)
        assert done.returncode != 0
        assert "writes Lease csi-local-path/node-n1 alone" in done.stderr, done.stderr


@pytest.mark.parametrize("kind", ["secrets", "pods", "nodes", "persistentvolumes", "persistentvolumeclaims", "leases"])
def test_node_lists_nothing_of_the_cluster(rooted: Caller, kind: str) -> None:
    done = rooted("get", kind, "-A")
    assert is_forbidden(done), done.stderr


def test_node_reads_the_controllers_leases_alone(rooted: Caller) -> None:
    one = "--field-selector=metadata.name="
    assert rooted("get", "leases", f"{one}controller-0").returncode == 0
    assert is_forbidden(rooted("get", "leases", f"{one}node-n2"))
    assert is_forbidden(rooted("get", "lease", "node-n2"))
