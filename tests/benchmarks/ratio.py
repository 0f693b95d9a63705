"""Ratios of times in one process: what can be compared between machines."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Work = Callable[[], object]
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


def nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Pair:
    """Two pieces of work, timed in turn.

    Args:
        first: seconds of the first, a median over rounds.
        second: seconds of the second.
        ratio: the median over rounds of first/second, each within one round.
        low: lower quartile of that.
        high: upper quartile.
        rounds: how many.
    """

    first: float
    second: float
    ratio: float
    low: float
    high: float
    rounds: int


def pairs(
    first: Work,
    second: Work,
    rounds: int = 60,
    warmup: int = 5,
    before: Work = nothing,
    clock: Clock = time.perf_counter,
) -> Pair:
    """Time both in turn, so that drifts of the machine cancel; which one begins alternates.

    Args:
        first: what is measured.
        second: what it is measured against.
        rounds: pairs that count.
        warmup: pairs before them.
        before: run before every ``first``, not timed: it brings about what ``first`` starts from.
        clock: ``time.process_time`` leaves out what other programs took; with one thread both are the same on a machine
            that does nothing else.
    """
    one: list[float] = []
    two: list[float] = []
    for k in range(warmup + rounds):
        if k % 2:
            two.append(seconds(second, clock))
        before()
        one.append(seconds(first, clock))
        if not k % 2:
            two.append(seconds(second, clock))
    one, two = one[warmup:], two[warmup:]
    ratios = [a / b for a, b in zip(one, two, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return Pair(statistics.median(one), statistics.median(two), middle, low, high, rounds)


@dataclass(frozen=True)
class Timing:
    """How pairs are timed.

    Args:
        rounds: at most.
        budget: seconds for the rounds of one pair; a pair that takes longer is timed once. Its first work has been
            done before, by its check.
        clock: a name in ``CLOCKS``.
    """

    rounds: int = 60
    budget: float = 3.0
    clock: str = "wall"

    def pairs(self, first: Work, second: Work, before: Work = nothing) -> Pair:
        """Time two works in turn, within the budget."""
        begin = time.perf_counter()
        only = pairs(first, second, rounds=1, warmup=0, before=before, clock=CLOCKS[self.clock])
        once = time.perf_counter() - begin
        if once > self.budget:
            return only
        warmup = 3 if 10.0 * once < self.budget else 0
        rounds = max(1, min(self.rounds, int(self.budget / once)))
        return pairs(first, second, rounds, warmup, before, CLOCKS[self.clock])


def paired(first: Work, second: Work, rounds: int = 60, warmup: int = 5, **settings: Any) -> float:
    """Return the median over rounds of time(first)/time(second)."""
    return pairs(first, second, rounds, warmup, **settings).ratio


def seconds(work: Work, clock: Clock = time.perf_counter) -> float:
    """Return how long the work takes, once."""
    begin = clock()
    work()
    return clock() - begin
