"""Ratios of times in one process: what can be compared between machines."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def paired(first: Callable[[], object], second: Callable[[], object], rounds: int = 60, warmup: int = 5) -> float:
    """Return the median over rounds of time(first)/time(second), run in turn so that drifts of the machine cancel."""
    for _ in range(warmup):
        first()
        second()
    ratios = []
    for _ in range(rounds):
        ratios.append(_seconds(first) / _seconds(second))
    return statistics.median(ratios)


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
