"""One installation with a class for each backend: what volumes are made of, and that their sizes hold."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.cluster.kube import Object
from tests.cluster.lab.commands import run
from tests.cluster.lab.places import entering, wait_until
from tests.cluster.lab.site import Node, nodes
from tests.cluster.lab.volumes import record_of
from tests.cluster.manifests import CLASS, IMAGE_CLASS, MOUNT, SUBVOLUME_CLASS, XFS_CLASS
from tests.cluster.scene import Scene

MIB = 1 << 20
SIZE_BYTES = 1 << 30
WRITTEN_BYTES = 100 * MIB
LEAST_SHARE = 0.93  # of an image's size, that its filesystem leaves
STATS_S = 90.0


@dataclass(frozen=True)
class Made:
    """A class and what its volumes are."""

    storage_class: str
    backend: str
    fs_type: str = ""
    why: str = ""  # a write past the size fails


SUBVOLUME = Made(SUBVOLUME_CLASS, "subvolume", why="Disk quota exceeded")
IMAGE = Made(IMAGE_CLASS, "image", "ext4", why="No space left on device")
XFS = Made(XFS_CLASS, "image", "xfs", why="No space left on device")
HELD = pytest.mark.parametrize("made", [SUBVOLUME, IMAGE, XFS], ids=lambda made: made.storage_class)
IMAGES = pytest.mark.parametrize("made", [IMAGE, XFS], ids=lambda made: made.storage_class)


def used(scene: Scene, made: Made, size: str = "1Gi") -> tuple[Node, Object]:
    """Make a claim `data` and a pod `writer` that has it; gives the node and the volume."""
    scene.claim("data", size, made.storage_class)
    name = scene.pod("writer", "data")["spec"]["nodeName"]
    return next(node for node in nodes() if node.name == name), scene.bound("data")


def write(scene: Scene, size_bytes: int = WRITTEN_BYTES) -> None:
    """Let the pod write, and make the filesystem count it."""
    scene.run("writer", f"dd if=/dev/zero of={MOUNT}/some bs=1M count={size_bytes // MIB} 2> /dev/null; sync")


def df(scene: Scene) -> tuple[int, int, int]:
    """Give size, use and rest of the volume as the pod sees it, in bytes."""
    size, in_use, rest = scene.run("writer", f"df -k {MOUNT} | tail -n 1").split()[1:4]
    return int(size) << 10, int(in_use) << 10, int(rest) << 10


def stats(scene: Scene, node: Node, at_least_bytes: int) -> tuple[int, int, int]:
    """Give the kubelet's figures of the volume, like `df`, as soon as they tell of so much use."""
    found: list[Object] = []

    def are_there() -> bool:
        found[:] = [one for one in [scene.kube.volume_stats(node.name, scene.namespace, "writer").get("data")] if one]
        return any(one["usedBytes"] >= at_least_bytes for one in found)

    wait_until(are_there, f"the kubelet tells of {at_least_bytes} bytes in use", STATS_S)
    return found[0]["capacityBytes"], found[0]["usedBytes"], found[0]["availableBytes"]


@pytest.mark.parametrize("made", [Made(CLASS, "directory"), SUBVOLUME, IMAGE, XFS], ids=lambda made: made.storage_class)
def test_class_has_volumes_of_its_backend(scene: Scene, made: Made) -> None:
    node, volume = used(scene, made, "300Mi")
    record = record_of(node, volume["metadata"]["name"])
    assert (record["backend"], record.get("fs_type", "")) == (made.backend, made.fs_type)
    assert record["capacity_bytes"] == 300 * MIB


@HELD
def test_pod_that_writes_past_the_size_is_stopped_and_its_neighbour_is_not(scene: Scene, made: Made) -> None:
    node, _ = used(scene, made, "300Mi")
    scene.claim("other", "300Mi", made.storage_class)
    scene.pod("neighbour", "other", node=node.name)
    fill = f"dd if=/dev/zero of={MOUNT}/fill bs=1M count=400 conv=fsync"
    assert made.why in scene.run("writer", f"if {fill} 2> /tmp/why; then echo fits; else cat /tmp/why; fi")
    assert int(scene.run("writer", f"stat -c %s {MOUNT}/fill")) <= 300 * MIB
    scene.run("neighbour", f"dd if=/dev/zero of={MOUNT}/fill bs=1M count=200 conv=fsync")


@IMAGES
def test_image_df_and_kubelet_agree_and_leave_most_of_the_claim(scene: Scene, made: Made) -> None:
    node, _ = used(scene, made)
    write(scene)
    size, in_use, rest = df(scene)
    assert SIZE_BYTES * LEAST_SHARE <= size <= SIZE_BYTES
    found = stats(scene, node, WRITTEN_BYTES)
    assert found == pytest.approx((size, in_use, rest), abs=MIB)  # of what the filesystem does by itself
    assert found[0] == size


def test_subvolume_kubelet_tells_limit_and_reference(scene: Scene) -> None:
    node, volume = used(scene, SUBVOLUME)
    write(scene)
    size, in_use, rest = stats(scene, node, WRITTEN_BYTES)
    assert (size, rest) == (SIZE_BYTES, SIZE_BYTES - in_use)
    record = record_of(node, volume["metadata"]["name"])
    groups = run(*entering(node.name, "mount"), "btrfs", "qgroup", "show", "--raw", "-r", "/mnt/disks/btrfs")
    (group,) = (line.split() for line in groups.splitlines() if line.startswith(f"1/{record['subvolume_id']} "))
    assert (int(group[1]), int(group[3])) == (in_use, SIZE_BYTES)
