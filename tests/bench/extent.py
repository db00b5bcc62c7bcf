"""How much of everything a run makes; the table of `docs/how-to/bench.md` holds for the full extent only."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Extent = TypeVar("_Extent", bound="DataclassInstance")
_KEPT = {"callers", "rounds", "load_runs"}


@dataclass(frozen=True, slots=True)
class Extent:
    """Numbers of volumes, files, calls and repeats."""

    few: int = 100  # volumes
    many: int = 10_000  # volumes
    files: int = 100_000  # of one volume
    published: int = 500  # volumes
    published_many: int = 5_000  # volumes
    lives: int = 400  # volumes that are created, used and deleted, ten calls each
    work: int = 200  # volumes that one timed round publishes and unpublishes
    creates: int = 300  # of one timed round
    limited: int = 50  # volumes with a limit, beside `published_many`
    images: int = 40

    load_runs: int = 10  # of fio, on either side
    load_s: int = 10  # of one of them
    callers: int = 10
    rounds: int = 5


def scaled(extent: _Extent, factor: float, *, at_least: int) -> _Extent:
    """Give a smaller run, to try a bench itself; callers and repeats stay."""
    if factor == 1:
        return extent
    given = {field.name: getattr(extent, field.name) for field in fields(extent)}
    return replace(extent, **{name: max(at_least, round(n * factor)) for name, n in given.items() if name not in _KEPT})
