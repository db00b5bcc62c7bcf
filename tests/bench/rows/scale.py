"""What a call costs as the number of volumes grows."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from tests.bench.figures import timed_ms
from tests.bench.table import Row
from tests.bench.target import Target, delete

if TYPE_CHECKING:
    from tests.bench.client import Client, Placed
    from tests.bench.extent import Extent
    from tests.bench.site import Site

PAGE = 100


class Side:
    """One server and its samples, in milliseconds."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.creates: list[float] = []
        self.pages: list[float] = []
        self.created: list[Placed] = []
        self._token = ""

    def find_middle(self, client: Client) -> None:
        """Choose the page to be asked for: one in the middle, where there is one."""
        ids, token = client.page(max(1, len(self.target.population) // 2))
        self._token = token if len(self.target.population) - len(ids) >= PAGE else ""

    def list_page(self, client: Client) -> None:
        """Take one sample of ListVolumes."""
        self.pages.append(timed_ms(lambda: client.page(PAGE, self._token)))

    def create(self, client: Client, name: str) -> None:
        """Take one sample of CreateVolume."""
        self.creates.append(timed_ms(lambda: self.created.append(client.create(name))))


def scale(site: Site, extent: Extent) -> list[Row]:
    """Compare a server of few volumes with one of many."""
    with ExitStack() as stack:
        targets = [stack.enter_context(site.serving(name)) for name in ("few", "many")]
        few, many = (Side(target) for target in targets)
        few.target.populate(extent.few)
        if few.target is many.target:  # one peer: first few, then many
            _measure([few], extent)
            many.target.populate(extent.many)
            _measure([many], extent)
        else:
            many.target.populate(extent.many)
            _measure([few, many], extent)
    return [
        Row.ratio(
            "create",
            f"create p50 with {extent.many:,} volumes / with {extent.few:,}",
            many.creates,
            few.creates,
            at_most=1.2,
        ),
        Row.ratio("list", f"ListVolumes page of {PAGE}, the same", many.pages, few.pages, at_most=1.5),
    ]


def _measure(sides: list[Side], extent: Extent) -> None:
    clients = [side.target.client() for side in sides]
    for side, client in zip(sides, clients, strict=True):
        side.find_middle(client)
    for _ in range(extent.rounds):
        for _ in range(extent.creates // extent.rounds):
            for side, client in zip(sides, clients, strict=True):
                side.list_page(client)
        _create_and_delete(sides, clients, max(1, extent.creates // extent.rounds))
    for client in clients:
        client.close()


def _create_and_delete(sides: list[Side], clients: list[Client], count: int) -> None:
    """Create in turns; what was created goes at once, so that few volumes stay few."""
    names = [side.target.new_names(count) for side in sides]
    for i in range(count):
        for side, client, own in zip(sides, clients, names, strict=True):
            side.create(client, own[i])
    for side in sides:
        with side.target.crew() as crew:
            delete(crew, side.created)
        side.created.clear()
        side.target.rest()
