"""What a run leaves: the rows of each part, and all of them as JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

from tests.bench.table import Row

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def measured(name: str, measure: Callable[[], list[Row]]) -> list[Row]:
    """Give the rows of a part; one that says why where it could not be measured."""
    began = time.monotonic()
    try:
        rows = measure()
    except Exception as error:  # noqa: BLE001 - one row that fails must not cost the others
        traceback.print_exc()
        rows = [Row(name, name, None, note=f"{type(error).__name__}: {error}".splitlines()[0][:100])]
    print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return rows


def write_report(path: Path, rows: list[Row], **about: Any) -> None:
    """Write the rows, with every sample, and what the run was."""
    report = {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **about,
        "host": {
            "kernel": platform.release(),
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
        },
        "rows": [row.as_json() for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
