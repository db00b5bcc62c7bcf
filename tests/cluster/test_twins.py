"""A disk that was copied: its pool is found on two nodes, and stays with the one that had it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cluster.driver import renew_agent, wait_event
from tests.cluster.kube import Kube, Object
from tests.cluster.lab.commands import run
from tests.cluster.lab.places import entering
from tests.cluster.lab.pools import KIND, disks
from tests.cluster.lab.site import Node, nodes
from tests.cluster.manifests import SELECTED_NODE, SMALL_CLASS
from tests.cluster.scene import Scene
from tests.cluster.test_claims import node_of

NAME = "small"


@contextmanager
def copied(kube: Kube, source: Node, target: Node) -> Iterator[None]:
    """Lay a copy of a node's disk over another node's, as if it had been imaged with the pool on it."""
    (disk,) = (disk for disk in disks(source) if disk.name == NAME)
    copy = target.folder / "copy"
    run(*entering(source.name), "fsfreeze", "--freeze", str(disk.path))
    try:
        run("cp", "--sparse=always", str(source.folder / f"{NAME}.{disk.kind}"), str(copy))
    finally:
        run(*entering(source.name), "fsfreeze", "--unfreeze", str(disk.path))
    run(*entering(target.name), "mount", "-o", "loop", str(copy), str(disk.path))
    try:
        renew_agent(kube, target)  # an agent that runs would keep to the disk that it has
        yield
    finally:
        run(*entering(target.name), "umount", "--lazy", str(disk.path))
        renew_agent(kube, target)
        copy.unlink()


@pytest.mark.skipif(KIND == "btrfs", reason="btrfs does not mount a copy beside its original")
def test_pool_that_two_nodes_claim_stays_where_it_was(scene: Scene, kube: Kube) -> None:
    first, second = nodes()[0], nodes()[2]
    with copied(kube, first, second):
        wait_event(kube, second.name, "PoolClaimedTwice", f"it stays with node {first.name}")
        scene.claim("away", storage_class=SMALL_CLASS, node=second.name)
        scene.claim("home", storage_class=SMALL_CLASS, node=first.name)
        assert node_of(scene.bound("home")) == first.name
        scene.wait_event("away", "ResourceExhausted", "is claimed by another node too")

        def is_free(claim: Object) -> bool:
            return SELECTED_NODE not in claim["metadata"].get("annotations", {})

        found = kube.wait("PersistentVolumeClaim", "away", scene.namespace, is_free)
        assert "volumeName" not in found["spec"]
    scene.claim("back", storage_class=SMALL_CLASS, node=second.name)
    assert node_of(scene.bound("back")) == second.name
