"""The server's CPU time of a call while volumes are published."""

from __future__ import annotations

from collections import defaultdict
from itertools import cycle, islice
from typing import TYPE_CHECKING

from tests.bench.client import Client, Placed
from tests.bench.table import Row
from tests.bench.target import Target, delete, stage, unstage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.bench.crew import Crew
    from tests.bench.extent import Extent
    from tests.bench.site import Site

CALLS = ("publish", "unpublish", "stats")
Samples = dict[str, list[float]]  # microseconds of CPU per call, by call


class Standing:
    """Volumes that stay published while others come and go."""

    def __init__(self, target: Target, crew: Crew) -> None:
        self._target = target
        self._crew = crew
        self.volumes: list[Placed] = []

    def become(self, count: int) -> None:
        """Have the first `count` volumes of the population published."""
        have = len(self.volumes)
        added, gone = self._target.population[have:count], self.volumes[count:]
        stage(self._crew, added)
        self._crew.run(Client.publish, added)
        self._crew.run(Client.unpublish, gone)
        unstage(self._crew, gone)
        self.volumes = self._target.population[:count]
        self._target.rest()


def publishing(site: Site, extent: Extent) -> list[Row]:
    """Compare publish, unpublish and stats with `Probe`, and many published volumes with few."""
    with site.serving("published") as target, target.crew() as crew, target.crew(fresh=True) as dialers:
        target.populate(extent.published_many)
        work = crew.run(Client.create, target.new_names(extent.work))
        stage(crew, work)
        standing = Standing(target, crew)
        few, many, dialed = _samples(), _samples(), _samples()
        for _ in range(2):
            standing.become(extent.published)
            _rounds(target, crew, work, standing.volumes, few, extent.rounds)
            _rounds(target, dialers, work, standing.volumes, dialed, 2)
            standing.become(extent.published_many)
            _rounds(target, crew, work, standing.volumes, many, extent.rounds)
        standing.become(0)
        unstage(crew, work)
        delete(crew, work)
    return [*_per_probe(few, extent), *_per_few(many, few, extent), *_dialed(dialed, few)]


def _samples() -> Samples:
    return defaultdict(list)


def _rounds(
    target: Target, crew: Crew, work: list[Placed], standing: list[Placed], samples: Samples, count: int
) -> None:
    for _ in range(count):
        samples["probe"].append(_cost(target, crew, lambda client, _: client.probe(), work * 2))
        samples["publish"].append(_cost(target, crew, Client.publish, work))
        samples["stats"].append(_cost(target, crew, Client.stats, list(islice(cycle(standing), 2 * len(work)))))
        samples["unpublish"].append(_cost(target, crew, Client.unpublish, work))


def _cost(target: Target, crew: Crew, action: Callable[[Client, Placed], object], volumes: Sequence[Placed]) -> float:
    return target.cpu_us(lambda: crew.run(action, volumes)) / len(volumes)


def _per_probe(few: Samples, extent: Extent) -> list[Row]:
    measure = f"server CPU per {{}} with {extent.published:,} volumes published / per Probe"
    return [_row("cpu", measure, call, few[call], few["probe"], 3.0) for call in CALLS]


def _per_few(many: Samples, few: Samples, extent: Extent) -> list[Row]:
    measure = f"server CPU per {{}} with {extent.published_many:,} published / with {extent.published:,}"
    return [_row("cpu-many", measure, call, many[call], few[call], 1.5) for call in CALLS]


def _dialed(dialed: Samples, few: Samples) -> list[Row]:
    measure = "server CPU per {}, a new connection per call / a kept one"
    return [_row("cpu-dialed", measure, call, dialed[call], few[call], None) for call in (*CALLS, "probe")]


def _row(name: str, measure: str, call: str, samples: list[float], base: list[float], at_most: float | None) -> Row:
    return Row.ratio(f"{name}-{call}", measure.format(call), samples, base, at_most=at_most, unit="us")
