"""The admission policies for Leases, judged by a real API server: who may write which, in whatever way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster.policies.apiserver import APPLY, JSON_PATCH, MERGE, STRATEGIC, Answer, ApiServer, Object
from tests.cluster.policies.world import (
    AGENT,
    CONTROLLER,
    LEASES,
    NAMESPACE,
    Agent,
    agent_on,
    lease,
    pod,
    with_policies,
)

AGENT_ALONE = "the agent of node n1 writes Lease csi-local-path/node-n1 alone"
OWNED = "owned by its Node"


@pytest.fixture(scope="module")
def api() -> Iterator[ApiServer]:
    """An API server with the chart's manifests."""
    with with_policies() as server:
        yield server


@pytest.fixture(scope="module")
def n1(api: ApiServer) -> Agent:
    """The agent of node n1: trusted, or rooted and trying."""
    return agent_on(api, "n1")


@pytest.fixture(scope="module")
def n2(api: ApiServer) -> Agent:
    """The agent of node n2, whose Lease the other one is after."""
    return agent_on(api, "n2")


@pytest.fixture
def leases(api: ApiServer) -> Iterator[Callable[[Object], None]]:
    """Make Leases as the administrator; all of the namespace are gone after the test."""

    def make(thing: Object) -> None:
        api.done("POST", LEASES, thing)

    yield make
    api.done("DELETE", LEASES)


def refused(answer: Answer, said: str) -> None:
    """See that a policy refused, with its own sentence."""
    assert answer.code == 403, answer
    assert "ValidatingAdmissionPolicy" in answer.message
    assert said in answer.message


def renewed(kind: str, thing: Object) -> tuple[str, object, str]:
    """Give method, body and content type of one way to change a Lease that exists."""
    changed = {**thing, "spec": {**thing["spec"], "leaseDurationSeconds": 90}}
    return {
        "replace": ("PUT", changed, "application/json"),
        "merge patch": ("PATCH", changed, MERGE),
        "strategic patch": ("PATCH", changed, STRATEGIC),
        "json patch": ("PATCH", [{"op": "replace", "path": "/spec/leaseDurationSeconds", "value": 90}], JSON_PATCH),
        "apply": ("PATCH", changed, APPLY),
        "delete": ("DELETE", None, "application/json"),
    }[kind]


WAYS = ("replace", "merge patch", "strategic patch", "json patch", "apply", "delete")


def change(api: ApiServer, way: str, thing: Object, token: str) -> Answer:
    """Try one way to change the Lease of this name, which exists."""
    path = f"{LEASES}/{thing['metadata']['name']}"
    # A Lease is replaced by whoever knows its version.
    found = api.done("GET", path)["metadata"]["resourceVersion"]
    fresh = {**thing, "metadata": {**thing["metadata"], "resourceVersion": found}}
    method, body, kind = renewed(way, fresh)
    return api.ask(method, path + ("?fieldManager=agent&force=true" if way == "apply" else ""), body, token, kind)


def apply_anew(api: ApiServer, thing: Object, token: str) -> Answer:
    """Make a Lease by server-side apply."""
    return api.ask("PATCH", f"{LEASES}/{thing['metadata']['name']}?fieldManager=agent", thing, token, APPLY)


@pytest.mark.usefixtures("leases")
def test_an_agent_makes_its_own_lease(api: ApiServer, n1: Agent) -> None:
    assert api.ask("POST", LEASES, n1.lease(), n1.token).code == 201


@pytest.mark.usefixtures("leases")
def test_an_agent_makes_its_own_lease_by_apply(api: ApiServer, n1: Agent) -> None:
    assert apply_anew(api, n1.lease(), n1.token).code == 201


@pytest.mark.parametrize("way", WAYS)
def test_an_agent_changes_its_own_lease(api: ApiServer, n1: Agent, leases: Callable[[Object], None], way: str) -> None:
    leases(n1.lease())
    answer = change(api, way, n1.lease(), n1.token)
    assert answer.code == 200, answer


OTHERS = ("node-n2", "node-n10", "controller-0", "controller-1", "local-path-csi-dev", "n1")


@pytest.mark.usefixtures("leases")
@pytest.mark.parametrize("name", OTHERS)
def test_an_agent_makes_no_other_lease(api: ApiServer, n1: Agent, name: str) -> None:
    thing = {**n1.lease(), "metadata": {**n1.lease()["metadata"], "name": name}}
    refused(api.ask("POST", LEASES, thing, n1.token), AGENT_ALONE)
    refused(apply_anew(api, thing, n1.token), AGENT_ALONE)
    assert api.ask("GET", f"{LEASES}/{name}").code == 404


@pytest.mark.parametrize("name", ["node-n2", "controller-0"])
@pytest.mark.parametrize("way", WAYS)
def test_an_agent_changes_no_other_lease(
    api: ApiServer, n1: Agent, leases: Callable[[Object], None], way: str, name: str
) -> None:
    leases(lease(name))
    refused(change(api, way, lease(name, ownerReferences=n1.lease()["metadata"]["ownerReferences"]), n1.token), name)
    assert api.done("GET", f"{LEASES}/{name}")["spec"]["leaseDurationSeconds"] == 60


def test_an_agent_cannot_delete_all_leases_at_once(api: ApiServer, n1: Agent, leases: Callable[[Object], None]) -> None:
    leases(lease("controller-0"))
    refused(api.ask("DELETE", LEASES, token=n1.token), AGENT_ALONE)
    assert api.ask("GET", f"{LEASES}/controller-0").code == 200


@pytest.mark.usefixtures("leases")
def test_a_name_that_the_server_makes_is_not_its_own(api: ApiServer, n1: Agent) -> None:
    thing = n1.lease(generateName="node-n1")
    del thing["metadata"]["name"]
    refused(api.ask("POST", LEASES, thing, n1.token), AGENT_ALONE)


def test_labels_and_annotations_open_nothing(api: ApiServer, n1: Agent, leases: Callable[[Object], None]) -> None:
    leases(lease("controller-0"))
    marked: Object = {
        "labels": {"app.kubernetes.io/component": "node", "node": "n1"},
        "annotations": {"local-path.csi.dev/announcement": '{"node": "n1"}'},
    }
    refused(change(api, "merge patch", lease("controller-0", **marked), n1.token), AGENT_ALONE)
    refused(api.ask("POST", LEASES, lease("node-n2", **marked), n1.token), AGENT_ALONE)


@pytest.mark.parametrize("kind", [MERGE, STRATEGIC])
def test_a_lease_is_not_renamed_into_another(
    api: ApiServer, n1: Agent, leases: Callable[[Object], None], kind: str
) -> None:
    leases(n1.lease())
    body = {"metadata": {"name": "controller-0"}}
    answer = api.ask("PATCH", f"{LEASES}/node-n1", body, n1.token, kind)
    assert answer.code in (400, 403, 422), answer
    assert api.ask("GET", f"{LEASES}/controller-0").code == 404


@pytest.mark.parametrize("namespace", ["default", "kube-system"])
def test_an_agent_writes_no_lease_of_another_namespace(api: ApiServer, n1: Agent, namespace: str) -> None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    refused(api.ask("POST", path, n1.lease(), n1.token), AGENT_ALONE)


def wrong_owners(n1: Agent, n2: Agent) -> dict[str, dict[str, Any]]:
    right = n1.lease()["metadata"]["ownerReferences"][0]
    return {
        "none": {"ownerReferences": []},
        "other uid": {"ownerReferences": [{**right, "uid": n2.uid}]},
        "other node": {"ownerReferences": n2.lease()["metadata"]["ownerReferences"]},
        "other kind": {"ownerReferences": [{**right, "kind": "ConfigMap"}]},
        "two": {"ownerReferences": [right, {**right, "kind": "Pod"}]},
    }


@pytest.mark.usefixtures("leases")
@pytest.mark.parametrize("case", ["none", "other uid", "other node", "other kind", "two"])
def test_the_lease_of_a_node_goes_with_that_node(api: ApiServer, n1: Agent, n2: Agent, case: str) -> None:
    wrong = lease("node-n1", **wrong_owners(n1, n2)[case])
    refused(api.ask("POST", LEASES, wrong, n1.token), OWNED)
    api.done("POST", LEASES, n1.lease())
    refused(change(api, "replace", wrong, n1.token), OWNED)


@pytest.mark.usefixtures("leases")
def test_the_lease_of_a_node_cannot_be_held_by_a_finalizer(api: ApiServer, n1: Agent) -> None:
    refused(api.ask("POST", LEASES, n1.lease(finalizers=["a.test/held"]), n1.token), "finalizers")


@pytest.mark.usefixtures("leases")
def test_a_token_of_the_node_before_does_not_write_for_the_node_after(api: ApiServer) -> None:
    api.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "again"}})
    before = agent_on(api, "again")
    api.done("DELETE", "/api/v1/nodes/again")
    api.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "again"}})
    after = agent_on(api, "again")
    refused(api.ask("POST", LEASES, after.lease(), before.token), OWNED)
    assert api.ask("POST", LEASES, after.lease(), after.token).code == 201


@pytest.mark.usefixtures("leases")
@pytest.mark.parametrize("bound_to", ["nothing", "a pod without a node", "a secret", "a node that is gone"])
def test_a_token_without_a_node_writes_no_lease(api: ApiServer, n1: Agent, bound_to: str) -> None:
    token = api.token(NAMESPACE, AGENT, nodeless(api, bound_to))
    for way in ("POST", "PATCH"):
        path, kind = (LEASES, "") if way == "POST" else (f"{LEASES}/node-n1?fieldManager=agent", APPLY)
        refused(api.ask(way, path, n1.lease(), token, kind), "bound to its node")
    api.done("POST", LEASES, n1.lease())
    for way in WAYS:
        refused(change(api, way, n1.lease(), token), "bound to its node")


def nodeless(api: ApiServer, bound_to: str) -> Object | None:
    """Make what a token can be bound to and yet have no node, or no node's uid."""
    match bound_to:
        case "a secret":
            head = {"apiVersion": "v1", "kind": "Secret"}
            return api.apply({**head, "metadata": {"name": "of-a-test", "namespace": NAMESPACE}})
        case "a pod without a node":
            return pod(api, "waiting", AGENT, None)
        case "a node that is gone":
            return pod(api, "stray", AGENT, "gone")
    return None


@pytest.fixture(scope="module")
def controller(api: ApiServer) -> str:
    """The token of a controller's pod."""
    return api.token(NAMESPACE, CONTROLLER, pod(api, "controller", CONTROLLER, "n1"))


SLOTS = ("controller-0", "controller-1", "local-path-csi-dev", "external-resizer-local-path-csi-dev")


@pytest.mark.parametrize("name", SLOTS)
@pytest.mark.parametrize("way", WAYS)
def test_a_controller_writes_its_slots_and_its_sidecars_leases(
    api: ApiServer, controller: str, leases: Callable[[Object], None], way: str, name: str
) -> None:
    leases(lease(name))
    assert change(api, way, lease(name), controller).code == 200
    if way == "delete":
        assert api.ask("POST", LEASES, lease(name), controller).code == 201


@pytest.mark.parametrize("name", ["node-n1", "controller-2", "anything"])
@pytest.mark.parametrize("way", WAYS)
def test_a_controller_writes_no_other_lease(
    api: ApiServer, controller: str, leases: Callable[[Object], None], way: str, name: str
) -> None:
    refused(api.ask("POST", LEASES, lease(name), controller), "never that of a node")
    refused(apply_anew(api, lease(name), controller), "never that of a node")
    leases(lease(name))
    refused(change(api, way, lease(name), controller), "never that of a node")


@pytest.mark.usefixtures("leases")
def test_a_token_that_no_pod_of_a_controller_has_writes_no_slot(api: ApiServer) -> None:
    token = api.token(NAMESPACE, CONTROLLER)
    refused(api.ask("POST", LEASES, lease("controller-0"), token), "bound to none")


@pytest.mark.parametrize("name", ["node-n1", "controller-0", "anything"])
@pytest.mark.usefixtures("leases")
def test_nobody_else_is_concerned(api: ApiServer, name: str) -> None:
    assert api.ask("POST", LEASES, lease(name)).code == 201
