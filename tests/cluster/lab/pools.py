"""The disks of a node: filesystems of their own, in files that outlive a reboot."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.lab.commands import run
from tests.cluster.lab.site import Node
from tests.support.filesystems import make_image

# To try another filesystem; all that tests/support/filesystems.py makes will do.
KIND = os.environ.get("POOL_FILESYSTEM", "ext4")


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk that each node has, or, where `only` is a node's number, that node alone. kind: its filesystem."""

    name: str
    size_bytes: int
    only: int = 0
    kind: str = KIND

    @property
    def path(self) -> Path:
        """Give where it is mounted on the node."""
        return Path("/mnt/disks") / self.name


# What is written to a node's disks is what they take of this machine's.
DISKS = (
    Disk("main", 20 << 30),
    Disk("small", 1 << 30),
    Disk("second", 1 << 30, only=2),
    Disk("btrfs", 20 << 30, kind="btrfs"),
)


def disks(node: Node) -> list[Disk]:
    """Give the disks of a node."""
    return [disk for disk in DISKS if disk.only in {0, node.number}]


def mount_pools(node: Node) -> None:
    """Mount the disks of a node, inside its namespaces; made where they are new."""
    for disk in disks(node):
        image = node.folder / f"{disk.name}.{disk.kind}"
        if not image.exists():
            make_image(disk.kind, image, disk.size_bytes)
        disk.path.mkdir(parents=True)
        run("mount", "-t", disk.kind, "-o", "loop", str(image), str(disk.path))
