"""Control groups of the nodes: a kubelet wants its root to exist in each hierarchy before it starts.

Version 1 has a hierarchy for each controller, version 2 one for all.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.cluster.lab.places import wait_until
from tests.cluster.lab.site import FOLDER, Node

_TOP = Path("/sys/fs/cgroup")
# Another clone on this machine has a cluster of its own.
_PREFIX = f"csi-local-path-{hashlib.sha256(bytes(FOLDER)).hexdigest()[:8]}-"


def name(node: Node) -> str:
    """Give the name of a node's root in each hierarchy."""
    return _PREFIX + node.name


def ensure(node: Node) -> None:
    """Make a node's roots."""
    for top in _hierarchies():
        group = top / name(node)
        group.mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):  # version 1 starts with none
            if (top / file).exists() and not (group / file).read_text().strip():
                (group / file).write_text((top / file).read_text())
    if (_TOP / "cgroup.controllers").exists():
        controllers = (_TOP / "cgroup.controllers").read_text().split()
        for group in (_TOP, _TOP / name(node)):
            (group / "cgroup.subtree_control").write_text(" ".join(f"+{controller}" for controller in controllers))


def ensure_absent(pattern: str = "*") -> None:
    """Remove the roots of nodes that match, all by default, which run nothing any more."""
    wait_until(lambda: not _rest(pattern), "the nodes' control groups are gone")


def _rest(pattern: str) -> list[Path]:
    """Remove what can be removed; gives what is left, for a process in exit holds its group a moment longer."""
    roots = [root for top in _hierarchies() for root in top.glob(_PREFIX + pattern)]
    for root in roots:
        for folder, _, _ in os.walk(root, topdown=False):
            with suppress(OSError):
                os.rmdir(folder)
    return [root for root in roots if root.exists()]


def _hierarchies() -> Iterator[Path]:
    if (_TOP / "cgroup.procs").exists():
        yield _TOP
        return
    for entry in _TOP.iterdir():
        if (entry / "cgroup.procs").exists() and not entry.is_symlink():
            yield entry
