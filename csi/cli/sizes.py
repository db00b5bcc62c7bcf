"""Sizes and ages as people read them."""

from __future__ import annotations

import time
from datetime import datetime

UNKNOWN = "-"

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_STEP = 1024
_AGES = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def human_size(size_bytes: int | None) -> str:
    """Write a size in IEC units with at most one decimal: 1536 -> '1.5 KiB'; '-' if it is not known."""
    if size_bytes is None:
        return UNKNOWN
    size, unit = float(size_bytes), 0
    while abs(size) >= _STEP and unit < len(_UNITS) - 1:
        size, unit = size / _STEP, unit + 1
    return f"{size:.1f}".removesuffix(".0") + " " + _UNITS[unit]


def human_age(since: float | str | None, now: float | None = None) -> str:
    """Write how long ago a moment was (Unix seconds or ISO 8601), in its largest unit: '3h'; '-' if not known."""
    if not since:
        return UNKNOWN
    try:
        moment = datetime.fromisoformat(since).timestamp() if isinstance(since, str) else since
    except ValueError:
        return UNKNOWN
    seconds = max(0, int((time.time() if now is None else now) - moment))
    return next((f"{seconds // size}{unit}" for size, unit in _AGES if seconds >= size), "0s")
