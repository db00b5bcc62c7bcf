"""Where volumes come to lie: where there is room, where the class's pool is, where the topology says."""

from __future__ import annotations

from tests.cluster.kube import Object
from tests.cluster.lab.site import nodes
from tests.cluster.manifests import SMALL_CLASS
from tests.cluster.scene import Scene

SECOND_CLASS = "local-path-second"  # its pool is on n2 alone
BIG = "600Mi"  # two of these do not fit into the small pool of a node


def is_unschedulable(pod: Object) -> bool:
    """Tell whether the scheduler found no node."""
    conditions = pod["status"].get("conditions", ())
    return any(one["type"] == "PodScheduled" and one.get("reason") == "Unschedulable" for one in conditions)


def test_full_node_sends_pods_elsewhere_and_a_full_cluster_keeps_them_waiting(scene: Scene) -> None:
    for node in nodes():
        scene.claim(f"on-{node.name}", BIG, SMALL_CLASS)
        scene.pod(f"on-{node.name}", f"on-{node.name}")
    used = {pod["spec"]["nodeName"] for pod in scene.kube.list("Pod", scene.namespace)}
    assert used == {node.name for node in nodes()}

    scene.claim("late", BIG, SMALL_CLASS)
    scene.start("late", "late")
    scene.kube.wait("Pod", "late", scene.namespace, is_unschedulable)
    scene.end("on-n1")
    scene.kube.delete("PersistentVolumeClaim", "on-n1", scene.namespace)
    scene.running("late")


def test_pool_of_one_node_draws_its_pods_there(scene: Scene) -> None:
    for number in range(3):
        scene.claim(f"c{number}", storage_class=SECOND_CLASS)
        assert scene.pod(f"p{number}", f"c{number}")["spec"]["nodeName"] == "n2"


def test_claim_of_a_pool_that_its_node_lacks_waits_and_says_why(scene: Scene) -> None:
    scene.claim("data", storage_class=SECOND_CLASS)
    scene.start("stuck", "data", node="n1")
    pod = scene.kube.wait("Pod", "stuck", scene.namespace, is_unschedulable)
    message = next(one["message"] for one in pod["status"]["conditions"] if one["type"] == "PodScheduled")
    assert "did not have enough free storage" in message
