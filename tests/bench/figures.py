"""Figures from samples."""

from __future__ import annotations

import math
import time
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def timed_ms(action: Callable[[], object]) -> float:
    """Do it and give the milliseconds that it took."""
    began = time.perf_counter_ns()
    action()
    return (time.perf_counter_ns() - began) / 1e6


def percentile(samples: Sequence[float], share: float) -> float:
    """Give the smallest sample that `share` of all do not exceed (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def p50(samples: Sequence[float]) -> float:
    """Give the median."""
    return median(samples)


def p99(samples: Sequence[float]) -> float:
    """Give the 99th percentile."""
    return percentile(samples, 0.99)


def spread(samples: Sequence[float]) -> list[float]:
    """Give samples rounded, for the JSON."""
    return [round(sample, 4) for sample in samples]
