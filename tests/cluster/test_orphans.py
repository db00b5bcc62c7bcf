"""Volumes that nobody knows of any more: what was never used goes, what was used is told, and can be had back."""

from __future__ import annotations

import yaml

from tests.cluster.driver import (
    agent,
    container_id,
    controllers,
    frozen,
    home_of,
    signal_container,
    wait_event,
    wait_ready,
)
from tests.cluster.kube import Kube, execute
from tests.cluster.lab.places import wait_until
from tests.cluster.lab.site import NAMESPACE, nodes
from tests.cluster.lab.volumes import all_volumes, volumes_on
from tests.cluster.manifests import CLASS, MOUNT
from tests.cluster.scene import Scene


def test_volume_whose_claim_went_while_the_provisioner_was_down_goes_to_the_trash(scene: Scene, kube: Kube) -> None:
    node = nodes()[0]
    scene.claim("before", node=node.name)
    scene.bound("before")  # so that there is a leader
    leader = controllers(kube)[0]
    provisioner = container_id(leader, "provisioner")
    with frozen(node, container_id(agent(kube, node))):
        name = f"pvc-{scene.claim('lost', node=node.name)['metadata']['uid']}"
        scene.wait_event("lost", "Provisioning")
        signal_container(home_of(leader), provisioner, "SIGSTOP")
    wait_until(lambda: name in volumes_on(node), "the node has made the volume")
    kube.delete("PersistentVolumeClaim", "lost", scene.namespace)
    kube.wait_gone("PersistentVolumeClaim", "lost", scene.namespace)
    signal_container(home_of(leader), provisioner)  # and with it what it was doing
    assert kube.get("PersistentVolume", name) is None

    wait_until(lambda: name not in all_volumes(), "the volume goes to the trash")
    wait_event(kube, node.name, "OrphansDiscarded", name)
    wait_ready(kube)


def test_volume_that_was_used_is_told_and_left_and_its_manifests_bring_it_back(scene: Scene, kube: Kube) -> None:
    node = nodes()[1]
    name = forgotten(scene, kube, node.name)
    wait_event(kube, node.name, "OrphansFound", name)
    assert name in volumes_on(node)

    command = f"csi-local-path manifests --claims --storage-class {CLASS}"
    printed = execute(agent(kube, node)["metadata"]["name"], NAMESPACE, command)
    volume, claim = (
        one for one in yaml.safe_load_all(printed) if name in (one["metadata"]["name"], one["spec"].get("volumeName"))
    )
    kube.create(volume)
    kube.create(claim, claim["metadata"]["namespace"])
    assert scene.bound("used")["metadata"]["name"] == name
    scene.pod("reader", "used")
    assert scene.run("reader", f"cat {MOUNT}/file") == "kept\n"
    assert scene.running("reader")["spec"]["nodeName"] == node.name
    kube.patch("PersistentVolume", name, {"spec": {"persistentVolumeReclaimPolicy": "Delete"}})


def forgotten(scene: Scene, kube: Kube, node: str) -> str:
    """Leave a volume with data on a node, and nothing of it in the API server, as after the loss of etcd."""
    scene.claim("used", node=node)
    name = str(scene.bound("used")["metadata"]["name"])
    scene.pod("writer", "used", node=node)
    scene.run("writer", f"echo kept > {MOUNT}/file; sync")
    kube.patch("PersistentVolume", name, {"spec": {"persistentVolumeReclaimPolicy": "Retain"}})
    scene.end("writer")
    kube.delete("PersistentVolumeClaim", "used", scene.namespace)
    kube.wait_gone("PersistentVolumeClaim", "used", scene.namespace)
    kube.delete("PersistentVolume", name)
    kube.wait_gone("PersistentVolume", name)
    return name
