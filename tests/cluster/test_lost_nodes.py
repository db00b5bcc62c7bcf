"""A node that goes and does not come back: what becomes of claims for it, and of volumes on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from csi.cluster.gone import ON_GONE_KEY
from tests.cluster.driver import wait_event, wait_ready
from tests.cluster.kube import Kube, Object
from tests.cluster.lab import lifecycle
from tests.cluster.lab.places import find, wait_until
from tests.cluster.lab.pools import disks
from tests.cluster.lab.site import Node, nodes
from tests.cluster.lab.volumes import all_volumes
from tests.cluster.manifests import DISPOSABLE_CLASS, SELECTED_NODE, SMALL_CLASS
from tests.cluster.scene import Scene

LONGEST_S = 180.0
OWN_TIME_S = 400  # for a test: patience is what is tried here


@pytest.fixture
def lost(kube: Kube) -> Iterator[Node]:
    """Give the node to lose; it is there again afterwards, as a new one where its object was deleted."""
    node = nodes()[2]
    yield node
    if find(node.name) is None:
        lifecycle.start_node(node)
    wait_until(lifecycle.all_ready, "all nodes are ready", LONGEST_S)
    wait_ready(kube)


@pytest.mark.timeout(OWN_TIME_S)
def test_claim_for_a_node_that_does_not_answer_is_let_go(scene: Scene, kube: Kube, lost: Node) -> None:
    lifecycle.kill_node(lost)
    scene.claim("data", node=lost.name)

    def is_free(claim: Object) -> bool:
        return SELECTED_NODE not in claim["metadata"].get("annotations", {})

    kube.wait("PersistentVolumeClaim", "data", scene.namespace, is_free, LONGEST_S)
    assert any("ResourceExhausted" in event for event in scene.events("data")), scene.events("data")


@pytest.mark.timeout(OWN_TIME_S)
def test_volumes_of_a_node_that_is_gone_go_where_the_class_says_so_and_wait_elsewhere(
    scene: Scene, kube: Kube, lost: Node
) -> None:
    scene.claim("kept", node=lost.name)
    scene.claim("disposable", storage_class=DISPOSABLE_CLASS, node=lost.name)
    scene.claim("replaced", storage_class=SMALL_CLASS, node=lost.name)
    kept, disposable, replaced = (scene.bound(one)["metadata"]["name"] for one in ("kept", "disposable", "replaced"))
    uid = uid_of(kube, lost)
    lifecycle.kill_node(lost)
    kube.delete("Node", lost.name)
    for name in ("kept", "disposable"):
        kube.delete("PersistentVolumeClaim", name, scene.namespace)
    kube.wait_gone("PersistentVolume", disposable, patience_s=LONGEST_S)
    wait_event(kube, disposable, "NodeGone", f"{lost.name} (uid {uid}) is gone for good, and the data with it")
    assert kube.get("PersistentVolume", kept) is not None
    wait_event(kube, kept, "VolumeFailedDelete", f"kubectl annotate pv {kept} {ON_GONE_KEY}=delete", "onNodeGone")

    (small,) = (disk for disk in disks(lost) if disk.name == "small")
    (lost.folder / f"{small.name}.{small.kind}").unlink()
    lifecycle.start_node(lost)  # a new Node, on the old disks but for this one
    kube.wait_gone("PersistentVolume", kept, patience_s=LONGEST_S)
    assert kept not in all_volumes()

    assert uid_of(kube, lost) != uid
    kube.patch("PersistentVolume", replaced, {"metadata": {"annotations": {ON_GONE_KEY: "delete"}}})
    kube.delete("PersistentVolumeClaim", "replaced", scene.namespace)
    kube.wait_gone("PersistentVolume", replaced, patience_s=LONGEST_S)  # after the grace of that pool
    wait_event(kube, replaced, "NodeGone", f"uid {uid}")


def uid_of(kube: Kube, node: Node) -> str:
    """Give the uid of a Node."""
    found = kube.get("Node", node.name)
    assert found is not None
    return str(found["metadata"]["uid"])
