"""Namespaces of the cluster's places: started, found, entered and ended.

Every process of a place carries its mark in its environment: the process table is the only record of what
runs, so nothing is lost when `up` is killed half-way. Containers do not carry it, but they end with the first
process of their namespace.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from provisioner.linux.libc import function
from tests.cluster.lab.site import FOLDER, LOGS, ROOT

_MARK = "CSI_LOCAL_PATH_PLACE"
_PATIENCE_S = 60.0
_CLONE_NEWNET = 0x40000000
_setns = function("setns", ctypes.c_int, ctypes.c_int)


class ClusterError(Exception):
    """The cluster did not do what was asked."""


def wait_until(true: Callable[[], bool], what: str, patience_s: float = _PATIENCE_S) -> None:
    """Wait until something is so; raises ClusterError, which names it, when it is not in time."""
    ends = time.monotonic() + patience_s
    while not true():
        if time.monotonic() > ends:
            raise ClusterError(f"{what}: not so within {patience_s:g} s; logs are in {LOGS}")
        time.sleep(0.1)


def start(place: str) -> int:
    """Start the first process of a place; gives its id."""
    LOGS.mkdir(parents=True, exist_ok=True)
    unshare = ["unshare", "--mount", "--net", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
    with (LOGS / f"{place}.log").open("ab") as log:
        subprocess.run(
            ["setsid", "--fork", *unshare, sys.executable, "-m", "tests.cluster.lab.init", place],
            check=True,
            cwd=ROOT,
            env={**os.environ, _MARK: _mark(place)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    wait_until(lambda: find(place) is not None, f"{place} has a first process")
    return pid_of(place)


def find(place: str) -> int | None:
    """Give the id of a place's first process as this machine counts, None where there is none."""
    return next((pid for pid in _marked(_mark(place)) if _is_first(pid)), None)


def pid_of(place: str) -> int:
    """Give the id of a place's first process; raises ClusterError where there is none."""
    pid = find(place)
    if pid is None:
        raise ClusterError(f"{place} does not run; make cluster-up starts a cluster")
    return pid


def entering(place: str, *kinds: str) -> list[str]:
    """Give the words that, before a command, run it in a place; kinds: of namespaces, all by default."""
    wanted = kinds or ("mount", "net", "pid", "uts")
    return ["nsenter", "--target", str(pid_of(place)), *(f"--{kind}" for kind in wanted)]


def enter_network(place: str) -> None:
    """Move this thread, and the threads and processes that it starts, to the network of a place."""
    fd = os.open(f"/proc/{pid_of(place)}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _setns(fd, _CLONE_NEWNET)
    finally:
        os.close(fd)


def kill(place: str) -> None:
    """End a place at once, as a power cut does; containers end with it."""
    _kill(_mark(place))


def kill_all() -> None:
    """End every place."""
    _kill(_mark(""))


def _kill(mark: str) -> None:
    for pid in _marked(mark):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not list(_marked(mark)), f"{Path(mark).name} ended")


def _mark(place: str) -> str:
    return f"{FOLDER}/{place}"


def _marked(mark: str) -> Iterator[int]:
    """Give the processes of a place, or of all where the mark ends with a slash."""
    wanted = f"{_MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with suppress(OSError):  # it ended, or belongs to another namespace
            for word in (entry / "environ").read_bytes().split(b"\0"):
                if word == wanted or (wanted.endswith(b"/") and word.startswith(wanted)):
                    yield int(entry.name)


def _is_first(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                inside = line.split()[1:]
                return len(inside) > 1 and inside[-1] == "1"
    return False
