"""The driver's own pods: found, killed, made anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from csi.services.identity import NAME
from tests.cluster.kube import Kube, Object, is_running
from tests.cluster.lab.commands import run
from tests.cluster.lab.lifecycle import kubectl
from tests.cluster.lab.places import ClusterError, entering, wait_until
from tests.cluster.lab.site import NAMESPACE, Node, nodes, program

AGENTS = "app.kubernetes.io/component=node"
CONTROLLERS = "app.kubernetes.io/component=controller"
_READY_S = 90.0


def agent(kube: Kube, node: Node) -> Object:
    """Give the agent's pod of a node."""
    found = _agents(kube, node)
    assert len(found) == 1, f"wanted one agent on {node.name}, found {len(found)}"
    return found[0]


def _agents(kube: Kube, node: Node) -> list[Object]:
    return kube.list("Pod", NAMESPACE, AGENTS, f"spec.nodeName={node.name}")


def container_id(pod: Object, name: str = "driver") -> str:
    """Give the id of a container that runs."""
    found = next(one for one in pod["status"]["containerStatuses"] if one["name"] == name)
    return str(found["containerID"]).removeprefix("containerd://")


def signal_container(node: Node, container: str, signal: str = "SIGKILL") -> None:
    """Send a signal to a container's first process; needs no API server."""
    ctr = [*entering(node.name), program("ctr"), "-n", "k8s.io"]
    run(*ctr, "tasks", "kill", "--signal", signal, container)


@contextmanager
def frozen(node: Node, container: str) -> Iterator[None]:
    """Let a container's first process stand still for a while, or until somebody kills it."""
    signal_container(node, container, "SIGSTOP")
    try:
        yield
    finally:
        with suppress(ClusterError):  # it is gone
            signal_container(node, container, "SIGCONT")


def wait_event(kube: Kube, name: str, reason: str, *words: str, patience_s: float = 60.0) -> None:
    """Wait until an event of a reason about an object without a namespace has all these words."""

    def is_told() -> bool:
        found = kube.list("Event", "default", fields=f"involvedObject.name={name},reason={reason}")
        return any(all(word in event["message"] for word in words) for event in found)

    wait_until(is_told, f"an event {reason} about {name} says {words}", patience_s)


def home_of(pod: Object) -> Node:
    """Give the node that a pod runs on."""
    return next(node for node in nodes() if node.name == pod["spec"]["nodeName"])


def renew_agent(kube: Kube, node: Node) -> None:
    """Make the agent of a node anew."""
    name = agent(kube, node)["metadata"]["name"]
    kube.delete("Pod", name, NAMESPACE, grace_s=1)
    kube.wait_gone("Pod", name, NAMESPACE)
    wait_agent(kube, node)


def wait_agent(kube: Kube, node: Node) -> None:
    """Wait until a node's agent runs and its kubelet knows the driver.

    The DaemonSet may still tell of an agent that is gone; and for a node of which the kubelet said no topology,
    csi-provisioner asks nobody. What stands in the CSINode may be of the agent before: it goes for a moment when the
    kubelet takes the new one.
    """

    def is_known() -> bool:
        found = _agents(kube, node)
        known = kube.get("CSINode", node.name)
        drivers = (known or {"spec": {}})["spec"].get("drivers") or []
        is_there = len(found) == 1 and is_running(found[0]) and any(one["name"] == NAME for one in drivers)
        return is_there and f"the kubelet took {NAME}" in _said_by_registrar(found[0])

    wait_until(is_known, f"the agent of {node.name} runs and is registered", _READY_S)


def _said_by_registrar(pod: Object) -> str:
    try:
        return run(*kubectl("logs", "-n", NAMESPACE, pod["metadata"]["name"], "-c", "registrar"))
    except ClusterError:  # it starts just now
        return ""


def controllers(kube: Kube) -> list[Object]:
    """Give the pods of the controller, the leader of csi-provisioner first."""
    lease = kube.get("Lease", "local-path-csi-dev", NAMESPACE)
    leader = lease["spec"]["holderIdentity"] if lease else ""
    pods = kube.list("Pod", NAMESPACE, CONTROLLERS)
    return sorted(pods, key=lambda pod: not _leads(pod, leader))


def _leads(pod: Object, leader: str) -> bool:
    """Tell whether a pod is a leader: the sidecars call themselves by time or host name, with the pod's in it."""
    return str(pod["metadata"]["name"]) in leader.replace("_", "-")


def renew(kube: Kube, selector: str) -> None:
    """Make the driver's pods anew: one that was killed often is started again late."""
    for old in kube.list("Pod", NAMESPACE, selector):
        kube.delete("Pod", old["metadata"]["name"], NAMESPACE, grace_s=1)
        kube.wait_gone("Pod", old["metadata"]["name"], NAMESPACE)
    if selector == AGENTS:
        wait_ready(kube)
    else:
        wait_controllers(kube)


def wait_ready(kube: Kube) -> None:
    """Wait until all that the chart wants runs."""
    kube.wait("DaemonSet", "csi-local-path-node", NAMESPACE, _daemons_ready, _READY_S)
    wait_controllers(kube)


def wait_controllers(kube: Kube) -> None:
    """Wait until the controllers run, whatever agents do."""
    kube.wait("Deployment", "csi-local-path-controller", NAMESPACE, _replicas_ready, _READY_S)


def _daemons_ready(found: Object) -> bool:
    status = found["status"]
    current = status.get("observedGeneration") == found["metadata"]["generation"]
    wanted = status["desiredNumberScheduled"]
    return bool(current and wanted == status.get("updatedNumberScheduled") == status.get("numberReady"))


def _replicas_ready(found: Object) -> bool:
    status, wanted = found["status"], found["spec"]["replicas"]
    current = status.get("observedGeneration") == found["metadata"]["generation"]
    counts = {status.get(name) for name in ("replicas", "updatedReplicas", "readyReplicas")}
    return bool(current and counts == {wanted})
