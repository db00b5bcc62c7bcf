"""Figures for `/metrics`, told by plain functions: whoever has some needs no Prometheus library.

    Family("csi_local_path_pool_volumes", "Volumes of the pool.", (Sample(3, {"pool": "default"}),))

A source is called at each scrape, by a thread of its own, and must neither wait nor cost more with more volumes.
Values of labels come from a small set that the administrator bounds (pools, roles), never from tenants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from provisioner.disk import Space
from provisioner.figures import ContentFigures, PoolFigures

PREFIX = "csi_local_path_"


@dataclass(frozen=True, slots=True)
class Sample:
    """One value and its labels."""

    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Family:
    """Values of one name. counter: they only grow, and the name ends in `_total`."""

    name: str
    text: str
    samples: tuple[Sample, ...]
    counter: bool = False


Source = Callable[[], Iterable[Family]]

_T = TypeVar("_T")
_Table = tuple[tuple[str, str, Callable[[_T], float | None]], ...]

_OF_POOL: _Table[PoolFigures] = (
    ("available", "1 where the disk was in its place when last looked at.", lambda p: p.space is not None),
    ("writable", "0 where the disk is away, read-only, or let a call down.", lambda p: p.writable),
    ("seen_timestamp_seconds", "When the disk was last looked at.", lambda p: p.seen_at),
)

_OF_SPACE: _Table[Space] = (
    ("size_bytes", "Size of the filesystem, without what it keeps for root.", lambda s: s.size_bytes),
    ("free_bytes", "Free bytes of the filesystem.", lambda s: s.free_bytes),
    ("inodes", "Inodes of the filesystem; 0 where it has no fixed number.", lambda s: s.inodes),
    ("free_inodes", "Free inodes of the filesystem.", lambda s: s.free_inodes),
)

_OF_CONTENTS: _Table[ContentFigures] = (
    ("volumes", "Volumes, without those in quarantine.", lambda c: c.volumes),
    ("published_volumes", "Volumes that are published at one path or more.", lambda c: c.published),
    ("ephemeral_volumes", "Volumes that stand in a pod's own manifest and end with it.", lambda c: c.ephemeral),
    ("quarantined_volumes", "Volumes whose record cannot be trusted.", lambda c: c.quarantined),
    ("promised_bytes", "Sum of the sizes of all volumes.", lambda c: c.promised_bytes),
    ("promisable_bytes", "What further volumes may be promised.", lambda c: c.promisable_bytes),
    ("used_bytes", "What all volumes were last measured to use.", lambda c: c.used_bytes),
    ("trash_bytes", "Sum of the sizes of deleted volumes that are not erased yet.", lambda c: c.trash_bytes),
    ("foreign_bytes", "What others were last measured to use on the filesystem.", lambda c: c.foreign_bytes),
    ("measured_timestamp_seconds", "When that was measured.", lambda c: c.measured_at),
)

# By the reason that health gives.
_DEGRADED: tuple[tuple[str, Callable[[ContentFigures], int]], ...] = (
    ("LimitLost", lambda c: c.lost_limits),
    ("LimitEscaped", lambda c: c.escaped_limits),
)


def of_pools(figures: Callable[[], Iterable[PoolFigures]]) -> Source:
    """Make a source of the pools of a node."""
    return lambda: _families(list(figures()))


def _families(pools: list[PoolFigures]) -> Iterator[Family]:
    yield from _told(_OF_POOL, {pool.name: pool for pool in pools})
    yield from _told(_OF_SPACE, {pool.name: pool.space for pool in pools if pool.space})
    contents = {pool.name: pool.contents for pool in pools if pool.contents}
    yield from _told(_OF_CONTENTS, contents)
    yield Family(
        f"{PREFIX}pool_degraded_volumes",
        "Volumes whose limit did not hold when they were last measured.",
        tuple(
            Sample(count(found), {"pool": pool, "reason": reason})
            for pool, found in contents.items()
            for reason, count in _DEGRADED
        ),
    )


def _told(table: _Table[_T], by_pool: Mapping[str, _T]) -> Iterator[Family]:
    for name, text, tell in table:
        values = ((pool, tell(found)) for pool, found in by_pool.items())
        samples = tuple(Sample(value, {"pool": pool}) for pool, value in values if value is not None)
        yield Family(f"{PREFIX}pool_{name}", text, samples)
