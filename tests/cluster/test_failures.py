"""What is killed or cut off, at the worst time; volumes, pods and claims must not notice for long."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.driver import (
    AGENTS,
    CONTROLLERS,
    agent,
    container_id,
    controllers,
    frozen,
    home_of,
    renew,
    signal_container,
    wait_ready,
)
from tests.cluster.kube import Kube, Object, is_bound
from tests.cluster.lab import lifecycle
from tests.cluster.lab.hub import outage
from tests.cluster.lab.places import wait_until
from tests.cluster.lab.site import NAMESPACE, nodes
from tests.cluster.lab.volumes import all_volumes, mounts_in
from tests.cluster.manifests import MOUNT
from tests.cluster.scene import Scene

CLAIMS = 24
LONGEST_S = 120.0


@pytest.fixture(autouse=True)
def whole_driver(kube: Kube) -> Iterator[None]:
    """Start each test with a driver that runs, and leave one."""
    wait_ready(kube)
    yield
    wait_ready(kube)


def make_claims(scene: Scene) -> None:
    """Make claims for all nodes."""
    for number in range(CLAIMS):
        scene.claim(f"c{number}", "16Mi", node=nodes()[number % len(nodes())].name)


def await_all_bound(scene: Scene, before: set[str]) -> None:
    """Wait for all claims, and see that there is one volume for each and no other on any disk."""

    def claims() -> list[Object]:
        return scene.kube.list("PersistentVolumeClaim", scene.namespace)

    wait_until(lambda: all(map(is_bound, claims())), "the claims are bound", LONGEST_S)
    assert {one["spec"]["volumeName"] for one in claims()} == all_volumes() - before


def test_agent_killed_in_the_middle_of_creates(scene: Scene, kube: Kube) -> None:
    before, node = all_volumes(), nodes()[0]
    scene.claim("before", node=node.name)
    scene.bound("before")  # so that there is a leader
    container = container_id(agent(kube, node))
    with frozen(node, container):
        make_claims(scene)
        scene.wait_event("c0", "Provisioning")  # of this node, and open: nobody can answer for it
        signal_container(node, container)
    await_all_bound(scene, before)
    renew(kube, AGENTS)


def test_controller_killed_in_the_middle_of_creates(scene: Scene, kube: Kube) -> None:
    before, leader = all_volumes(), controllers(kube)[0]
    make_claims(scene)
    signal_container(home_of(leader), container_id(leader))
    await_all_bound(scene, before)
    renew(kube, CONTROLLERS)


def test_controller_killed_between_the_nodes_commit_and_its_reply(scene: Scene, kube: Kube) -> None:
    node = nodes()[0]
    scene.claim("before", node=node.name)
    scene.bound("before")  # so that there are a leader and a connection
    before, leader = all_volumes(), controllers(kube)[0]
    driver = container_id(leader)
    with frozen(node, container_id(agent(kube, node))):
        uid = scene.claim("data", node=node.name)["metadata"]["uid"]
        scene.wait_event("data", "Provisioning")
        signal_container(home_of(leader), driver, "SIGSTOP")
    wait_until(lambda: f"pvc-{uid}" in all_volumes(), "the node has made the volume")
    assert (
        "volumeName" not in kube.list("PersistentVolumeClaim", scene.namespace, fields="metadata.name=data")[0]["spec"]
    )
    signal_container(home_of(leader), driver)
    scene.bound("data")
    assert all_volumes() - before == {f"pvc-{uid}"}
    renew(kube, CONTROLLERS)


def test_leading_controller_deleted_with_its_sidecars(scene: Scene, kube: Kube) -> None:
    before, leader = all_volumes(), controllers(kube)[0]["metadata"]["name"]
    make_claims(scene)
    kube.delete("Pod", leader, NAMESPACE, grace_s=0)
    await_all_bound(scene, before)


def test_agent_restarted_without_an_api_server_publishes_what_waits(scene: Scene, kube: Kube) -> None:
    node = nodes()[1]
    for name in ("old", "new"):
        scene.claim(name, node=node.name)
    scene.pod("old", "old", node=node.name)
    scene.run("old", f"echo kept > {MOUNT}/file")
    container = container_id(agent(kube, node))

    signal_container(node, container, "SIGSTOP")
    uid = scene.start("new", "new", node=node.name)["metadata"]["uid"]
    wait_until(lambda: any("FailedMount" in event for event in scene.events("new")), "the kubelet asks in vain")
    with outage():
        signal_container(node, container)
        wait_until(lambda: any(uid in path for path in mounts_in(node)), "the new pod's volume is published")
    scene.running("new")
    assert scene.run("old", f"cat {MOUNT}/file") == "kept\n"
    wait_until(lifecycle.all_ready, "all nodes are ready")
    renew(kube, AGENTS)


def test_rebooted_node_mounts_its_volumes_again(scene: Scene) -> None:
    node = nodes()[2]
    scene.claim("data")
    script = f"echo start >> {MOUNT}/starts; sync; exec sleep 100000"
    scene.pod("writer", "data", node=node.name, script=script, restartPolicy="Always")
    lifecycle.reboot(node)
    scene.restarted("writer")
    assert scene.run("writer", f"cat {MOUNT}/starts") == "start\nstart\n"
    wait_until(lifecycle.all_ready, "all nodes are ready")
