"""The cluster as a whole: up, down, and what happens to one node."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tests.cluster.lab import cgroups, pki, places
from tests.cluster.lab.commands import run
from tests.cluster.lab.hub import BRIDGE
from tests.cluster.lab.loops import ensure_detached
from tests.cluster.lab.places import ClusterError, entering, wait_until
from tests.cluster.lab.site import ADMIN, FOLDER, HUB, LOGS, PROGRAMS, Node, nodes, program
from tests.cluster.lab.supervisor import is_up

_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
_INOTIFY_BEFORE = FOLDER / "inotify"
_INOTIFY_NEEDED = 1024  # of this machine's root; containerd and kubelet take some dozens a node


def up(count: int, archives: list[Path]) -> None:
    """Start a new cluster of so many nodes with these images, in the place of any other; returns when it is ready."""
    down()
    for folder in (LOGS, FOLDER / "held", FOLDER / "running"):
        folder.mkdir(parents=True)
    (FOLDER / "nodes").write_text(str(count))
    _raise_inotify()
    pki.make(nodes())
    places.start(HUB)
    wait_until(lambda: is_up(HUB, "etcd"), "the hub has its network")
    with ThreadPoolExecutor() as pool:
        for node in nodes():
            start_node(node)
        list(pool.map(lambda node: load(node, archives), nodes()))
    wait_until(all_ready, f"{count} nodes are ready")


def down() -> None:
    """End the cluster, if there is one, and whatever it left; the logs of the last one stay."""
    places.kill_all()
    cgroups.ensure_absent()
    ensure_detached(FOLDER)
    if _INOTIFY_BEFORE.exists():
        _INOTIFY.write_text(_INOTIFY_BEFORE.read_text())
    last = FOLDER.with_name("cluster-log")
    if LOGS.exists():
        shutil.rmtree(last, ignore_errors=True)
        LOGS.rename(last)
    if FOLDER.exists():
        shutil.rmtree(FOLDER)


def start_node(node: Node) -> None:
    """Start a node and plug it in."""
    cgroups.ensure(node)
    pid = places.start(node.name)
    in_hub = entering(HUB, "net")
    cable = f"v{node.number}"
    # The old cable of a node that died is gone with its namespace, but not at once.
    wait_until(lambda: cable not in run(*in_hub, "ip", "-o", "link"), f"{cable} is free")
    run(*in_hub, "ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    run(*in_hub, "ip", "link", "set", cable, "master", BRIDGE, "up")
    run(*in_hub, "ip", "route", "replace", node.pods, "via", node.address)


def kill_node(node: Node) -> None:
    """End a node at once, as a power cut does."""
    places.kill(node.name)
    cgroups.ensure_absent(node.name)
    ensure_detached(node.folder)


def reboot(node: Node) -> None:
    """End a node at once and start it again."""
    kill_node(node)
    start_node(node)


def load(node: Node, archives: list[Path]) -> None:
    """Import image archives into a node."""
    ctr = [*entering(node.name), program("ctr"), "-n", "k8s.io"]

    def answers() -> bool:
        with suppress(ClusterError):
            return bool(run(*ctr, "version"))
        return False

    wait_until(answers, f"containerd of {node.name} answers")
    for archive in archives:
        run(*ctr, "images", "import", str(archive), patience_s=300)


def kubectl(*arguments: str) -> list[str]:
    """Give the command that runs kubectl as administrator."""
    return [*entering(HUB, "net"), str(PROGRAMS / "kubectl"), f"--kubeconfig={ADMIN}", *arguments]


def all_ready() -> bool:
    """Tell whether every node is ready."""
    try:
        listed = json.loads(run(*kubectl("get", "nodes", "-o", "json")))
    except ClusterError:  # the API server is not there yet
        return False
    ready = [
        condition["status"] == "True"
        for node in listed["items"]
        for condition in node["status"]["conditions"]
        if condition["type"] == "Ready"
    ]
    return len(ready) == len(nodes()) and all(ready)


def _raise_inotify() -> None:
    now = int(_INOTIFY.read_text())
    if now < _INOTIFY_NEEDED:
        _INOTIFY_BEFORE.write_text(str(now))
        _INOTIFY.write_text(str(_INOTIFY_NEEDED))
