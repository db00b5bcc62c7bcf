"""Rows of figures: what was measured, what it must reach, and whether it does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.bench.figures import p50, spread

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    figure: None if it could not be measured; `details` then says why. unit: "" for a ratio.
    at_most, at_least: what must be reached; both None for a figure that is information.
    details: figures that the row was computed from, for the JSON; `note` is shown beside the row.
    """

    name: str
    measure: str
    figure: float | None
    unit: str = ""
    at_most: float | None = None
    note: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    at_least: float | None = None

    @classmethod
    def ratio(
        cls,
        name: str,
        measure: str,
        samples: Sequence[float],
        base: Sequence[float],
        *,
        at_most: float | None,
        unit: str = "ms",
    ) -> Row:
        """Compare the medians of samples that were taken in turns, of one unit."""
        return cls(
            name,
            measure,
            p50(samples) / p50(base),
            at_most=at_most,
            note=f"{number(p50(samples), unit)} / {number(p50(base), unit)}",
            details={f"samples_{unit}": spread(samples), f"base_{unit}": spread(base)},
        )

    @property
    def verdict(self) -> str:
        """Give one of: ok, MISSED, information, NOT MEASURED."""
        if self.figure is None:
            return "NOT MEASURED"
        if self.at_most is None and self.at_least is None:
            return "information"
        too_much = self.at_most is not None and self.figure > self.at_most
        too_little = self.at_least is not None and self.figure < self.at_least
        return "MISSED" if too_much or too_little else "ok"

    def as_json(self) -> dict[str, Any]:
        """Give the row as plain data."""
        return {
            "name": self.name,
            "measure": self.measure,
            "figure": self.figure,
            "unit": self.unit,
            "at_most": self.at_most,
            "at_least": self.at_least,
            "verdict": self.verdict,
            "note": self.note,
            "details": self.details,
        }


def all_good(rows: list[Row]) -> bool:
    """Tell whether every row was measured and met its mark."""
    return not any(row.verdict in {"MISSED", "NOT MEASURED"} for row in rows)


HEAD = ("measure", "figure", "must reach", "verdict", "note")


def render(rows: list[Row]) -> str:
    """Give the table as text, columns aligned (valid Markdown, to be pasted)."""
    lines = [HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    ruler = tuple("-" * width for width in widths)
    return "\n".join(_line(cells, widths) for cells in (HEAD, ruler, *lines[1:]))


def _cells(row: Row) -> tuple[str, ...]:
    limits = (("<=", row.at_most), (">=", row.at_least))
    wanted = ", ".join(f"{sign} {number(limit, row.unit)}" for sign, limit in limits if limit is not None)
    found = "" if row.figure is None else number(row.figure, row.unit)
    return row.measure, found, wanted, row.verdict, row.note


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return "| " + " | ".join(padded) + " |"


def number(value: float, unit: str) -> str:
    """Write a figure with as many digits as it deserves."""
    text = f"{value:.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"
    return f"{text} {unit}".rstrip()
