"""Where everything of the test cluster lies, and which address each part has.

A place is the hub, with the control plane, or a node: a set of namespaces of its own. The addresses exist
in those namespaces alone.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROGRAMS = ROOT / ".cache/cluster-programs"
FOLDER = ROOT / ".cache/cluster"
LOGS = FOLDER / "log"
IMAGES = ROOT / ".cache/cluster-images"
ADMIN = FOLDER / "admin.kubeconfig"

NAMESPACE = "csi-local-path"

HUB = "hub"
HUB_ADDRESS = "192.168.66.1"
API_URL = f"https://{HUB_ADDRESS}"
SERVICES = "10.96.0.0/16"
API_SERVICE = "10.96.0.1"


@dataclass(frozen=True, slots=True)
class Node:
    """A node by its number, from 1 on."""

    number: int

    @property
    def name(self) -> str:
        """Give the name of the node and of its place."""
        return f"n{self.number}"

    @property
    def address(self) -> str:
        """Give the node's own address."""
        return f"192.168.66.{10 + self.number}"

    @property
    def pods(self) -> str:
        """Give the network of its pods."""
        return f"10.244.{self.number}.0/24"

    @property
    def folder(self) -> Path:
        """Give the folder of what outlives a reboot."""
        return FOLDER / self.name


def nodes() -> list[Node]:
    """Give the nodes that `up` was asked for; none where it was not."""
    count = FOLDER / "nodes"
    return [Node(number) for number in range(1, int(count.read_text()) + 1)] if count.exists() else []


def program(name: str) -> str:
    """Give the path of a program: one of ours, else of the machine."""
    ours = PROGRAMS / name
    found = str(ours) if ours.exists() else shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise FileNotFoundError(f"{name}: neither in {PROGRAMS} nor on this machine; run .ci/setup cluster")
    return found
