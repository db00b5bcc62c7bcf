"""A group of nodes with pools of its own, on disks one of which is mounted while the agent runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.driver import agent, wait_agent, wait_ready
from tests.cluster.kube import Kube
from tests.cluster.lab.commands import run
from tests.cluster.lab.install import install, lab_values
from tests.cluster.lab.places import entering
from tests.cluster.lab.site import Node, nodes
from tests.cluster.lab.volumes import root
from tests.cluster.scene import Scene
from tests.cluster.test_classes import made, storage_class
from tests.support.filesystems import make_image

LABEL = "local-path.csi.dev/pools"
GROUP = "archive"
DISKS = "/mnt/disks"
LATE = Path(DISKS) / "late"


def values_with_group() -> dict[str, Any]:
    """Give the cluster's values, and a group whose one disk is not there yet."""
    values: dict[str, Any] = lab_values()
    pool = {"name": "late", "path": str(LATE), "init": "if-empty", "requireMount": True}
    return values | {"nodeGroups": {GROUP: {"hostPaths": [DISKS], "pools": [pool]}}}


def group_of(kube: Kube, node: Node) -> str:
    """Name the group that a node's agent is of."""
    return str(agent(kube, node)["metadata"]["labels"]["local-path.csi.dev/group"])


@contextmanager
def grouped(kube: Kube, node: Node) -> Iterator[None]:
    """Have a node in the group for a while."""
    kube.patch("Node", node.name, {"metadata": {"labels": {LABEL: GROUP}}})
    try:
        install(values=values_with_group())
        wait_agent(kube, node)
        yield
    finally:
        kube.patch("Node", node.name, {"metadata": {"labels": {LABEL: None}}})
        install()
        wait_ready(kube)
        wait_agent(kube, node)


@pytest.fixture
def mount_point() -> Iterator[Path]:
    """Give the folder on the last node where its disk shall be mounted, as this machine sees it."""
    folder = root(nodes()[-1]) / LATE.relative_to("/")
    folder.mkdir()
    yield folder
    # By now no agent serves it any more.
    if folder.is_mount():
        run(*entering(nodes()[-1].name), "umount", str(LATE))
    folder.rmdir()


def test_group_has_an_agent_of_its_own_whose_disk_comes_late(
    scene: Scene, kube: Kube, mount_point: Path, tmp_path: Path
) -> None:
    *others, node = nodes()
    wanted = storage_class(f"{scene.namespace}-late", pool="late", backend="directory", enforce="besteffort")
    with grouped(kube, node), made(kube, wanted) as name:
        assert group_of(kube, node) == GROUP
        assert {group_of(kube, other) for other in others} == {"default"}

        scene.claim("data", "16Mi", name)
        scene.start("pod", "data")
        scene.wait_event("data", "ClassCannotBeServed", "the disk of pool 'late' is not there")
        assert os.listdir(mount_point) == [], "a disk that is not there was made a pool"

        make_image("ext4", tmp_path / "disk.ext4")
        run(*entering(node.name), "mount", "-o", "loop", str(tmp_path / "disk.ext4"), str(LATE))
        assert scene.running("pod")["spec"]["nodeName"] == node.name
        volume = scene.bound("data")["metadata"]["name"]
        assert os.listdir(mount_point / ".csi-local-path/volumes") == [volume]
        scene.end("pod")
        kube.delete("PersistentVolumeClaim", "data", scene.namespace)
        kube.wait_gone("PersistentVolume", volume)
