"""Which learning rate a method is judged at, and how far it can go up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from gaugefix.compare.results import Results
from gaugefix.compare.run import Run

LOSS = "val_loss_final"
"""Key of the summary that decides between learning rates with the same best metric."""


def best_lr(results: Results, method: str, start: str) -> float | None:
    """Return the learning rate with the best mean over seeds of the monitored metric.

    A learning rate at which some seed did not finish is taken only if there is no other. Of equals the one with the
    lower final validation loss is taken, then the smaller one.

    Returns:
        None if no run has a value, or the model has no learning rate.
    """
    sign = -1.0 if results.maximize else 1.0
    ranked = []
    for lr in rates(results, method, start):
        runs = results.select(method, start, lr)
        scores = finished_values(runs, results.monitor_key)
        if lr is not None and scores:
            losses = finished_values(runs, LOSS)
            ranked.append((len(scores) < len(runs), sign * fmean(scores), fmean(losses) if losses else math.inf, lr))
    return min(ranked)[3] if ranked else None


def judged(results: Results, method: str, start: str) -> tuple[Run, ...]:
    """Return the runs that a method is judged by: those at its best learning rate.

    A method without a learning rate is judged by all of its runs; one without a value by none.
    """
    lr = best_lr(results, method, start)
    runs = results.select(method, start, lr)
    return runs if lr is not None or any(run.value(results.monitor_key) is not None for run in runs) else ()


def largest_stable_lr(results: Results, method: str, start: str) -> float | None:
    """Return the greatest learning rate below the first at which a run diverged, or learned no more.

    Learning rates that are too small to learn anything, below the first at which all runs did, do not count.

    Returns:
        None if a run diverged at the smallest learning rate already, or none has learned.
    """
    stable = None
    for lr in rates(results, method, start):
        runs = results.select(method, start, lr)
        learned = [results.learned(run) for run in runs if run.outcome == "finished"]
        if any(run.outcome == "diverged" for run in runs) or (stable is not None and not all(learned)):
            break
        if learned and all(learned):
            stable = lr
    return stable


def rates(results: Results, method: str, start: str) -> list[float | None]:
    """Return the learning rates that a method was run at, rising."""
    found = {run.lr for run in results.runs if (run.method, run.start) == (method, start)}
    return sorted(found, key=lambda lr: -math.inf if lr is None else lr)


def finished_values(runs: Sequence[Run], key: str) -> list[float]:
    """Return a number of the summary of every run that finished and has it."""
    return [value for run in runs if run.outcome == "finished" and (value := run.value(key)) is not None]
