"""What somebody has who is root on a node: the token of its agent, its Lease, and a key of his own.

The agent stands still meanwhile, so that it does not write its Lease.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from csi.cluster.announcement import ANNOTATION, SCHEMA, Announcement, decode, encode
from csi.cluster.certificates import Credentials, new_credentials
from csi.cluster.leases import SLOTS
from tests.cluster.driver import agent, container_id, frozen, renew_agent, wait_agent
from tests.cluster.kube import Kube, Object
from tests.cluster.lab.commands import run
from tests.cluster.lab.lifecycle import kubectl
from tests.cluster.lab.pki import CA
from tests.cluster.lab.places import entering
from tests.cluster.lab.site import API_URL, HUB, HUB_ADDRESS, NAMESPACE, PROGRAMS, Node
from tests.support.announced import facts
from tests.support.liar import Liar, lying

NODE_ACCOUNT = "csi-local-path-node"
APPLY = ("apply", "--server-side", "--force-conflicts", "--field-manager=csi-local-path", "-f", "-")
POOL = "ffffffffffffffff"  # what the rooted node says it has


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


def node_object(kube: Kube, name: str) -> Object:
    """Give a Node."""
    found = kube.get("Node", name)
    assert found is not None
    return found


@dataclass
class Rooted:
    """A rooted node: `ask` asks the API server with its token, `liar` answers at its port with its own key."""

    node: Node
    ask: Caller
    port: int = 0
    liar: Liar = field(default_factory=Liar)
    credentials: Credentials = field(default_factory=new_credentials)

    def announce(self, kube: Kube, certificate: str) -> None:
        """Write the node's Lease, as the token is let; what it says otherwise is a controller's."""
        said = Announcement(SCHEMA, certificate, f"{HUB_ADDRESS}:{self.port}", (facts(POOL),))
        labels = {"app.kubernetes.io/component": "controller", "local-path.csi.dev/slot": SLOTS[0]}
        more = {"annotations": {ANNOTATION: encode(said)}, "labels": labels}
        done = self.ask(*APPLY, given=lease(f"node-{self.node.name}", node_object(kube, self.node.name), **more))
        assert done.returncode == 0, done.stderr


@contextmanager
def rooted(kube: Kube, node: Node) -> Iterator[Rooted]:
    """Take a node over, and announce another agent in its Lease, as its token is let; at the end all is as before."""
    wait_agent(kube, node)
    pod = agent(kube, node)
    found = Rooted(node, Caller(token(NODE_ACCOUNT, pod)))
    trusted = [announced(kube, slot).certificate for slot in SLOTS]
    try:
        with (
            frozen(node, container_id(pod)),
            lying(found.liar, found.credentials, lambda: trusted, HUB_ADDRESS) as found.port,
        ):
            found.announce(kube, found.credentials.certificate.decode())
            yield found
    finally:
        renew_agent(kube, node)


def announced(kube: Kube, name: str) -> Announcement:
    """Read what somebody says of himself in his Lease."""
    found = kube.get("Lease", name, NAMESPACE)
    assert found is not None
    return decode(found["metadata"].get("annotations", {}).get(ANNOTATION, ""))
