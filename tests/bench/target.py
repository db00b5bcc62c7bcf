"""A server under load, and the volumes that it was given."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.client import Client, Placed
from tests.bench.crew import Crew
from tests.bench.process import cpu_ns, server_pid, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_POLL_S = 0.05
_ERASE_TIMEOUT_S = 300.0


class TargetError(Exception):
    """The server did not come to rest; the figure would be another one's."""


class Target:
    """One endpoint with its population.

    work: folder for staging and target paths. trash: folder that is empty once all is erased; None where
    the server is not ours, and only its CPU time tells. population: volumes that stay from row to row.
    """

    def __init__(self, endpoint: str, work: Path, callers: int, trash: Path | None = None) -> None:
        self.endpoint = endpoint
        self.work = work
        self.callers = callers
        self.population: list[Placed] = []
        self._trash = trash
        self._numbers = itertools.count()
        self._stamp = f"{time.time_ns():x}"  # a peer may still have the volumes of an earlier run

    @property
    def pid(self) -> int:
        """Process id of the server as it runs now."""
        return server_pid(self.endpoint)

    def client(self, *, fresh: bool = False) -> Client:
        """Give a caller of its own."""
        return Client(self.endpoint, self.work, fresh=fresh)

    def crew(self, *, fresh: bool = False) -> Crew:
        """Give the callers that the table speaks of."""
        return Crew(self.endpoint, self.work, self.callers, fresh=fresh)

    def new_names(self, count: int) -> list[str]:
        """Give names that no volume has yet."""
        return [f"bench-{self._stamp}-{next(self._numbers):06}" for _ in range(count)]

    def populate(self, count: int, parameters: Mapping[str, str] | None = None) -> None:
        """Let the population grow to `count` volumes of a class."""
        missing = count - len(self.population)
        if missing > 0:
            with self.crew() as crew:
                self.population += crew.run(
                    lambda client, name: client.create(name, **(parameters or {})), self.new_names(missing)
                )
            self.rest()

    def cpu_us(self, action: Callable[[], object]) -> float:
        """Do it and give the microseconds of CPU that the server used meanwhile."""
        pid = self.pid
        before = cpu_ns(pid)
        action()
        return (cpu_ns(pid) - before) / 1000

    def erasing(self) -> bool:
        """Tell whether deleted volumes are still being erased."""
        if self._trash is not None:
            return any(self._trash.iterdir())
        return not settle(self.pid, timeout_s=0.5)

    def rest(self) -> None:
        """Wait until nothing of what was asked goes on in the background."""
        end = time.monotonic() + _ERASE_TIMEOUT_S
        while self.erasing():
            if time.monotonic() > end:
                raise TargetError(f"deleted volumes are not erased after {_ERASE_TIMEOUT_S:g} s")
            time.sleep(_POLL_S)
        if not settle(self.pid):
            raise TargetError("the server is busy though nothing is asked of it")


def prepare(volumes: Sequence[Placed]) -> None:
    """Make the folders that a kubelet would have made."""
    for volume in volumes:
        Path(volume.staging).mkdir(parents=True, exist_ok=True)
        Path(volume.target).parent.mkdir(parents=True, exist_ok=True)


def stage(crew: Crew, volumes: Sequence[Placed]) -> None:
    """Make volumes ready to be published, if the server stages at all."""
    prepare(volumes)
    if volumes and all(crew.run(lambda client, _: client.can_stage(), volumes[:1])):
        crew.run(Client.stage, volumes)


def unstage(crew: Crew, volumes: Sequence[Placed]) -> None:
    """Undo `stage`."""
    if volumes and all(crew.run(lambda client, _: client.can_stage(), volumes[:1])):
        crew.run(Client.unstage, volumes)


def delete(crew: Crew, volumes: Sequence[Placed]) -> None:
    """Delete volumes."""
    crew.run(lambda client, volume: client.delete(volume.volume_id), volumes)
