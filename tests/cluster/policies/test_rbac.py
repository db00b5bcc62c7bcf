"""What the chart lets its two accounts do, asked of a real API server's authorizer, and what it does not."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.cluster.policies.apiserver import ApiServer, running
from tests.cluster.policies.world import NAMESPACE, manifests

SETTLED_S = 30.0
EVERYWHERE = ("", "kube-system")


@pytest.fixture(scope="module")
def api() -> Iterator[ApiServer]:
    """An API server with the chart's manifests and nothing else."""
    with running() as server:
        for document in manifests():
            server.apply(document)
        end = time.monotonic() + SETTLED_S
        while not all(
            may(server, account, "list", "coordination.k8s.io/leases/controller-0")
            for account in ("node", "controller")
        ):
            assert time.monotonic() < end, "the API server did not learn of the roles"
            time.sleep(0.1)
        yield server


def may(api: ApiServer, account: str, verb: str, what: str, namespace: str = NAMESPACE) -> bool:
    """Ask whether an account may do something with GROUP/RESOURCE[/NAME], where the core group is 'core'."""
    group, resource, name = (*what.split("/"), "")[:3]
    resource, _, subresource = resource.partition(".")
    attributes = {
        "group": "" if group == "core" else group,
        "resource": resource,
        "subresource": subresource,
        "name": name,
        "namespace": namespace,
        "verb": verb,
    }
    user = f"system:serviceaccount:{NAMESPACE}:csi-local-path-{account}"
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated"]
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "metadata": {},
        "spec": {"user": user, "groups": groups, "resourceAttributes": attributes},
    }
    answer = api.done("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(answer["status"]["allowed"])


READ = ("get", "list", "watch")
WRITE = ("create", "update", "patch", "delete", "deletecollection")
LEASE = "coordination.k8s.io/leases"


@pytest.mark.parametrize("verb", ["list", "watch"])
@pytest.mark.parametrize("name", ["controller-0", "controller-1"])
def test_a_node_reads_the_leases_of_the_controllers(api: ApiServer, verb: str, name: str) -> None:
    assert may(api, "node", verb, f"{LEASE}/{name}")


@pytest.mark.parametrize("verb", READ)
@pytest.mark.parametrize("name", ["", "/node-n1", "/node-n2", "/local-path-csi-dev"])
def test_a_node_reads_no_other_lease(api: ApiServer, verb: str, name: str) -> None:
    assert not may(api, "node", verb, LEASE + name)


@pytest.mark.parametrize(
    "what",
    [
        "core/secrets",
        "core/configmaps",
        "core/nodes",
        "core/nodes.status",
        "core/pods",
        "core/pods.exec",
        "core/serviceaccounts.token",
        "core/persistentvolumes",
        "core/persistentvolumeclaims",
        "storage.k8s.io/storageclasses",
        "storage.k8s.io/csistoragecapacities",
        "apps/daemonsets",
        "admissionregistration.k8s.io/validatingadmissionpolicies",
        "rbac.authorization.k8s.io/roles",
    ],
)
def test_a_node_reads_and_writes_nothing_else(api: ApiServer, what: str) -> None:
    for namespace in (*EVERYWHERE, NAMESPACE):
        assert not [verb for verb in READ + WRITE if may(api, "node", verb, what, namespace)]


@pytest.mark.parametrize("account", ["node", "controller"])
def test_leases_of_other_namespaces_are_out_of_reach(api: ApiServer, account: str) -> None:
    for namespace in EVERYWHERE:
        assert not [verb for verb in READ + WRITE if may(api, account, verb, LEASE, namespace)]


def test_leases_are_applied_by_nodes_replaced_by_controllers_and_deleted_by_nobody(api: ApiServer) -> None:
    allowed = {"node": {"create", "patch"}, "controller": {"create", "update"}}
    for account, verbs in allowed.items():
        name = {"node": "node-n1", "controller": "controller-0"}[account]
        assert {verb for verb in WRITE if may(api, account, verb, f"{LEASE}/{name}")} == verbs


def test_a_controller_changes_its_slots_and_not_the_lease_of_a_node(api: ApiServer) -> None:
    assert all(may(api, "controller", "update", f"{LEASE}/{name}") for name in ("controller-0", "controller-1"))
    assert not [verb for verb in ("update", "patch", "delete") if may(api, "controller", verb, f"{LEASE}/node-n1")]


@pytest.mark.parametrize(
    ("what", "verbs"),
    [
        ("core/secrets", READ + WRITE),
        ("core/configmaps", READ + WRITE),
        ("core/serviceaccounts.token", WRITE),
        ("core/pods", WRITE),
        ("core/pods.exec", WRITE),
        ("core/nodes", WRITE),
        ("core/persistentvolumeclaims", ("create", "patch", "delete", "deletecollection")),
        ("core/persistentvolumes", ("update", "deletecollection")),
        ("storage.k8s.io/storageclasses", ("get", *WRITE)),
        ("storage.k8s.io/csinodes", ("get", *WRITE)),
        ("storage.k8s.io/csistoragecapacities", ("get", "patch", "deletecollection")),
        ("core/events", ("get", "list", "watch", "update", "delete", "deletecollection")),
        ("storage.k8s.io/csidrivers", READ + WRITE),
        ("admissionregistration.k8s.io/validatingadmissionpolicies", READ + WRITE),
        ("rbac.authorization.k8s.io/clusterroles", READ + WRITE),
    ],
)
def test_a_controller_has_no_more_than_its_calls_need(api: ApiServer, what: str, verbs: tuple[str, ...]) -> None:
    for namespace in (*EVERYWHERE, NAMESPACE):
        assert not [verb for verb in verbs if may(api, "controller", verb, what, namespace)]
