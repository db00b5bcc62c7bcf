"""Resident memory of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.process import resident_bytes
from tests.bench.table import Row
from tests.bench.target import Target, prepare

if TYPE_CHECKING:
    from tests.bench.client import Client
    from tests.bench.extent import Extent
    from tests.bench.site import Site

MB = 1e6
CALLS_OF_A_LIFE = 10


def memory(site: Site, extent: Extent) -> list[Row]:
    """Measure a server after many calls, after it got many volumes, and after a start with them."""
    with site.serving("many") as target:
        before = len(target.population)
        used = _used_after_calls(target, extent)
        target.populate(extent.many)
        added = _used(target) - used
    count = len(target.population) - before
    calls = f"{extent.lives * CALLS_OF_A_LIFE:,} calls by {extent.callers} callers"
    rows = [
        Row("memory", f"resident memory after {calls}", used, "MB", 62, note=f"{before:,} volumes"),
        Row("memory-added", f"added by {count:,} volumes, created by calls", added, "MB", 24),
    ]
    if site.own:
        with site.serving("many") as target:
            again = _used_after_calls(target, extent)
        measure = f"added by {count:,} volumes, found at a start, after the same calls"
        rows.append(Row("memory-found", measure, again - used, "MB", 24, note=f"{again:.1f} MB in all"))
    return rows


def _used_after_calls(target: Target, extent: Extent) -> float:
    with target.crew() as crew:
        crew.run(_life, target.new_names(extent.lives))
    target.rest()
    return _used(target)


def _used(target: Target) -> float:
    return resident_bytes(target.pid) / MB


def _life(client: Client, name: str) -> None:
    """Make the ten calls of a volume's life."""
    volume = client.create(name)
    prepare([volume])
    client.validate(volume.volume_id)
    client.stage(volume)
    client.publish(volume)
    client.stats(volume)
    client.probe()
    client.page(10)
    client.unpublish(volume)
    client.unstage(volume)
    client.delete(volume.volume_id)
