"""Tables and JSON for people and scripts. The only module besides the demo's that imports rich."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

_ENDLESS = 10_000  # columns of an output that is no terminal: nothing is cut
_NUMBERS = {"SIZE", "USED", "MEASURED", "AGE", "FREE", "PROMISED", "TRASH", "FOREIGN", "PROMISABLE"}


def printable(text: str) -> str:
    """Escape what would move the cursor or paint a terminal: names come from records on disks."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows below their headings; long words are folded on a terminal and left whole elsewhere."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in _NUMBERS else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _ENDLESS
    console.print(table, soft_wrap=False)


def print_json(found: Any) -> None:
    """Print as JSON, indented."""
    click.echo(json.dumps(found, indent=2))
