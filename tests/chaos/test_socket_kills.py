"""A real server, killed at 20 and more points of each call that it serves, and started again."""

from __future__ import annotations

import queue
import signal
import subprocess
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import grpc
import pytest

from csi.cli.child import ChildFailedError
from tests.chaos.matrix import is_point
from tests.chaos.rpcs import RPCS, Rpc, Site, site_config
from tests.support.served import served
from tests.support.strace import SystemCall, attached, kill_before, parse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_WIDTH = 2
_POINTS = 20
_TRIES = 5
_LATE_S = 0.5


@dataclass(frozen=True, slots=True)
class Moment:
    """A kill that comes `delay_s` after the call began; halved until it comes before the answer."""

    delay_s: float


class Sites:
    """Servers side by side."""

    def __init__(self, sites: list[Site]) -> None:
        self._free: queue.SimpleQueue[Site] = queue.SimpleQueue()
        for site in sites:
            self._free.put(site)
        self._numbers = count()

    def record(self, rpc: type[Rpc]) -> list[SystemCall | Moment]:
        """Make a call undisturbed and choose its points; and once more untraced, to learn how long it takes."""
        with self._site() as site:
            for old in site.place.glob("trace.*"):
                old.unlink()
            call = rpc(site, next(self._numbers))
            call.arrange()
            with attached(site.served.process.pid, site.place / "trace", threads=True):
                call.act()
            call.finish(acknowledged=True)
            threads = [parse(file.read_text(errors="replace")) for file in site.place.glob("trace.*")]
            call = rpc(site, next(self._numbers))
            call.arrange()
            began = time.monotonic()
            call.act()
            took_s = time.monotonic() - began
            call.finish(acknowledged=True)
            return choose(threads, site, took_s)

    def kill_at(self, rpc: type[Rpc], point: SystemCall | Moment) -> str:
        """Kill a server at one point of a call; gives '' where all is well after a restart."""
        with self._site() as site:
            try:
                reached = any(self._try(site, rpc, point, number) for number in range(_TRIES))
            except (AssertionError, grpc.RpcError, ChildFailedError):
                log = site.served.log_text()[-2000:]
                site.renew()
                return f"{point}\n{traceback.format_exc()}\n{log}"
            return "" if reached else f"not reached: {point}"

    def _try(self, site: Site, rpc: type[Rpc], point: SystemCall | Moment, number: int) -> bool:
        call = rpc(site, next(self._numbers))
        call.arrange()
        if isinstance(point, Moment):
            acknowledged, reached = _killed_after(site, call, point.delay_s / 2**number)
        else:
            acknowledged, reached = _killed_before(site, call, point)
        if site.served.process.poll() is not None:
            site.served.kill()  # it is dead already
            site.served.start()
        call.finish(acknowledged=acknowledged)
        return reached

    @contextmanager
    def _site(self) -> Iterator[Site]:
        site = self._free.get()
        try:
            yield site
        finally:
            self._free.put(site)


def _killed_before(site: Site, call: Rpc, point: SystemCall) -> tuple[bool, bool]:
    """Kill the server before a system call; tells whether the call was acknowledged, and whether the kill came."""
    process, output = site.served.process, site.place / "kill"
    with attached(process.pid, output, inject=kill_before(point), trace=point.name, threads=True):
        acknowledged = _acknowledged(call)
        with suppress(subprocess.TimeoutExpired):  # the point may lie behind the answer
            process.wait(_LATE_S)
    return acknowledged, process.poll() == -signal.SIGKILL


def _killed_after(site: Site, call: Rpc, delay_s: float) -> tuple[bool, bool]:
    """Kill the server some time after the call began; an answer that came first means: not reached."""
    process = site.served.process
    killer = threading.Timer(delay_s, process.kill)
    killer.start()
    acknowledged = _acknowledged(call)
    killer.join()
    process.wait()
    return acknowledged, not acknowledged


def _acknowledged(call: Rpc) -> bool:
    try:
        call.act()
    except grpc.RpcError:
        return False
    return True


def choose(threads: list[list[SystemCall]], site: Site, took_s: float) -> list[SystemCall | Moment]:
    """Choose points: the reading of the request, each call of the thread that works, the answer, and moments."""
    working = [calls for calls in threads if any(f'"{site.place}' in call.line for call in calls)]
    points: list[SystemCall | Moment] = [call for call in max(working, key=len) if is_point(call) and not call.wakes]
    for name in ("recvmsg", "sendmsg"):  # whichever thread does it
        first = next(call for calls in threads for call in calls if call.name == name)
        points += [] if first in points else [first]
    missing = max(0, _POINTS - len(points))
    return points + [Moment(took_s * (i + 1) / (missing + 1)) for i in range(missing)]


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    """Two servers."""
    with ExitStack() as stack:
        yield Sites([_site(stack, tmp_path_factory.mktemp("site")) for _ in range(_WIDTH)])


def _site(stack: ExitStack, place: Path) -> Site:
    server = stack.enter_context(served(site_config(place), place, start=False))
    site = Site(server, place, place / "pool")
    stack.callback(site.close)
    site.begin()
    return site


@pytest.mark.parametrize("method", RPCS)
def test_a_call_survives_every_kill_of_its_server(
    sites: Sites, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    points = sites.record(RPCS[method])
    with ThreadPoolExecutor(_WIDTH) as pool:
        findings = list(filter(None, pool.map(lambda point: sites.kill_at(RPCS[method], point), points)))
    with capsys.disabled():
        moments = sum(isinstance(point, Moment) for point in points)
        told = f"{len(points)} points ({len(points) - moments} system calls, {moments} moments)"
        print(f"\n{method} through the socket: {told} in {time.monotonic() - began:.1f} s")
    assert not findings, "\n".join(findings)
