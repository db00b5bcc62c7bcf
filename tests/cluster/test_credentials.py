"""A rooted node has its agent's credentials; what the API server of a whole cluster lets it do with them.

Each rule of RBAC and of the policies is tried in test_rbac and test_lease_policies, without a kubelet.
"""

from __future__ import annotations

import pytest

from tests.cluster.driver import agent
from tests.cluster.kube import Kube
from tests.cluster.lab.site import NAMESPACE, nodes
from tests.cluster.rooted import APPLY, NODE_ACCOUNT, Caller, is_forbidden, lease, node_object, token

TRY = (*APPLY, "--dry-run=server")
CREATE = ("create", "--dry-run=server", "-f", "-")  # admission is the same as without, and nothing is changed


@pytest.fixture
def rooted(kube: Kube) -> Caller:
    """Give what somebody has who is root on n1."""
    return Caller(token(NODE_ACCOUNT, agent(kube, nodes()[0])))


def test_node_may_renew_its_own_lease(kube: Kube, rooted: Caller) -> None:
    patched = rooted(*TRY, given=lease("node-n1", node_object(kube, "n1")))
    assert patched.returncode == 0, patched.stderr


@pytest.mark.parametrize("name", ["node-n2", "controller-0"])
def test_node_may_make_or_change_no_other_lease(kube: Kube, rooted: Caller, name: str) -> None:
    wanted = lease(name, node_object(kube, "n1"))
    for verb in (CREATE, TRY):
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


@pytest.mark.parametrize("namespace", [NAMESPACE, "default", "kube-system"])
def test_node_s_token_is_good_for_leases_and_else_for_what_every_account_may(rooted: Caller, namespace: str) -> None:
    more = allowed(rooted, namespace) - allowed(Caller(token("default", None)), namespace)
    assert more == ({"leases.coordination.k8s.io"} if namespace == NAMESPACE else set())


def allowed(caller: Caller, namespace: str) -> set[str]:
    """Name the resources that somebody may do something with."""
    told = caller("auth", "can-i", "--list", "-n", namespace)
    assert told.returncode == 0, told.stderr
    return {line.split()[0] for line in told.stdout.splitlines()[1:] if not line.startswith(" ")}


def test_node_makes_no_token_of_another_account(rooted: Caller) -> None:
    for account in ("csi-local-path-controller", NODE_ACCOUNT, "default"):
        assert is_forbidden(rooted("create", "token", account))


def test_node_cannot_be_somebody_else(rooted: Caller) -> None:
    other = "--as=system:serviceaccount:csi-local-path:csi-local-path-controller"
    assert is_forbidden(rooted("get", "--raw", "/api/v1/persistentvolumes", other))


def test_node_cannot_end_the_trust_in_a_controller(rooted: Caller) -> None:
    for name in ("controller-0", "node-n2", "node-n1"):
        assert is_forbidden(rooted("delete", "lease", name, "--dry-run=server"))
