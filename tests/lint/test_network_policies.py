"""What the chart's network policies let through: all that must pass, and nothing else.

Not every network holds policies, so what is judged here is what the rules say, by the rules of Kubernetes.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.chart import EVERYTHING, Object, rendered

ANYTHING = 65535
AGENT_PORT, AGENT_METRICS = 9901, 9902
PROMETHEUS = {"podSelector": {"matchLabels": {"app": "prometheus"}}}
METRICS = {"metricsFrom": [PROMETHEUS]}
NAMESPACE = "csi-local-path"


def workloads(objects: list[Object]) -> dict[str, Object]:
    """Give the pod templates by their workload."""
    found = (one for one in objects if one["kind"] in ("DaemonSet", "Deployment"))
    return {one["metadata"]["name"]: one["spec"]["template"] for one in found}


def ports_of(template: Object) -> dict[int, str]:
    """Give the ports that a pod says it serves, by number."""
    containers = template["spec"]["containers"]
    return {port["containerPort"]: port["name"] for one in containers for port in one["ports"]}


def passes(objects: list[Object], source: Object, target: Object, port: int) -> bool:
    """Tell whether a pod of this namespace with these labels reaches a pod's port (NetworkPolicy, networking/v1)."""
    policies = [
        one["spec"]
        for one in objects
        if one["kind"] == "NetworkPolicy" and selects(one["spec"]["podSelector"], target["metadata"]["labels"])
    ]
    if not any("Ingress" in spec["policyTypes"] for spec in policies):
        return True
    rules = [rule for spec in policies for rule in spec.get("ingress", ())]
    return any(
        any(is_peer(peer, source["metadata"]["labels"]) for peer in rule["from"])
        and any(each["protocol"] == "TCP" and each["port"] <= port <= each.get("endPort", each["port"])
                for each in rule["ports"])
        for rule in rules
    )  # fmt: skip


def is_peer(peer: Object, labels: dict[str, str]) -> bool:
    """Tell whether a peer means a pod of the policy's own namespace with these labels."""
    assert set(peer) == {"podSelector"}, "a peer in another namespace needs a judge that knows namespaces"
    return selects(peer["podSelector"], labels)


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Tell whether a selector means these labels; one that is empty means all."""
    assert set(selector) <= {"matchLabels"}
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


STRANGER: Object = {"metadata": {"labels": {"app": "tenant"}}}
SCRAPER: Object = {"metadata": {"labels": {"app": "prometheus"}}}


def reached(objects: list[Object], source: Object) -> set[tuple[str, int]]:
    """Give the served ports that a pod reaches."""
    return {
        (name, port)
        for name, template in workloads(objects).items()
        for port in ports_of(template)
        if passes(objects, source, template, port)
    }


VARIANTS: dict[str, dict[str, Any]] = {"shipped": {}, "everything": EVERYTHING | {"networkPolicy": {}}}


@pytest.mark.parametrize("variant", VARIANTS)
def test_controllers_reach_agents_at_their_port_and_nobody_reaches_anything_else(variant: str) -> None:
    objects = rendered(**VARIANTS[variant])
    found = workloads(objects)
    agents = {name for name in found if name.startswith("csi-local-path-node")}
    assert len(agents) == (2 if variant == "everything" else 1)
    for name, template in found.items():
        wanted = set() if name in agents else {(agent, AGENT_PORT) for agent in agents}
        assert reached(objects, template) == wanted
        for agent in agents:
            assert not passes(objects, template, found[agent], ANYTHING), "not even a port that nobody serves"
    assert reached(objects, STRANGER) == set()


def test_who_reads_metrics_reads_all_that_have_some_and_calls_nobody() -> None:
    objects = rendered(networkPolicy=METRICS, snapshotter={"enabled": True}, podMonitor={"enabled": True})
    found = reached(objects, SCRAPER)
    served = {(name, port) for name, template in workloads(objects).items() for port in ports_of(template)}
    assert found == served - {("csi-local-path-node", AGENT_PORT), ("csi-local-path-node", 9907)}
    assert ("csi-local-path-node", AGENT_METRICS) in found
    (monitor,) = (one for one in objects if one["kind"] == "PodMonitor")
    read = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
    names = {name: ports_of(template) for name, template in workloads(objects).items()}
    assert read <= {names[name][port] for name, port in found}
    assert reached(objects, STRANGER) == set()


def test_no_policy_keeps_a_pod_from_calling() -> None:
    """Controllers and agents need the API server, whose address no policy can name."""
    policies = [one["spec"]["policyTypes"] for one in rendered() if one["kind"] == "NetworkPolicy"]
    assert policies == [["Ingress"], ["Ingress"]]


def test_policies_can_be_left_out() -> None:
    assert not [one for one in rendered(networkPolicy={"enabled": False}) if one["kind"] == "NetworkPolicy"]


def test_the_namespace_of_the_policies_is_that_of_the_pods() -> None:
    objects = rendered()
    spaces = {one["metadata"]["namespace"] for one in objects if one["kind"] in ("NetworkPolicy", "DaemonSet")}
    assert spaces == {NAMESPACE}
