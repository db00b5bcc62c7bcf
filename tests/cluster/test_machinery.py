"""The cluster itself: what tests of the driver take for granted."""

from __future__ import annotations

from tests.cluster.kube import Kube, execute
from tests.cluster.lab import lifecycle
from tests.cluster.lab.hub import api_ready, outage
from tests.cluster.lab.places import wait_until
from tests.cluster.lab.site import nodes
from tests.cluster.scene import Scene


def test_pods_of_different_nodes_reach_each_other_and_the_api_server(scene: Scene) -> None:
    first, *others = [scene.pod(f"on-{node.name}", node=node.name) for node in nodes()]
    assert others
    for other in others:
        scene.run(first["metadata"]["name"], f"ping -c 1 -W 5 {other['status']['podIP']}")
    scene.run(first["metadata"]["name"], "nc -w 5 10.96.0.1 443 < /dev/null")


def test_api_server_goes_and_comes_back(kube: Kube) -> None:
    with outage():
        assert not api_ready()
    assert len(kube.list("Node")) == len(nodes())


def test_rebooted_node_starts_its_pods_again(scene: Scene) -> None:
    node = nodes()[-1]
    scene.pod("sleeper", node=node.name, restartPolicy="Always")
    execute("sleeper", scene.namespace, "touch /before")
    lifecycle.reboot(node)
    restarted = scene.kube.wait(
        "Pod", "sleeper", scene.namespace, lambda pod: bool(pod["status"]["containerStatuses"][0]["restartCount"])
    )
    assert restarted["spec"]["nodeName"] == node.name
    scene.running("sleeper")
    execute("sleeper", scene.namespace, "[ ! -e /before ]")
    wait_until(lifecycle.all_ready, "all nodes are ready")
