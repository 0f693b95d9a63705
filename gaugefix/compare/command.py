"""``gaugefix compare``: from what was typed to a grid."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from gaugefix.compare.conduct import conduct
from gaugefix.compare.dry_run import dry_run
from gaugefix.compare.grid import make_grid
from gaugefix.compare.sweep import read_sweep


def compare(typed: Namespace) -> int:
    """Run the comparison, or say what it would be.

    Args:
        typed: the options of ``gaugefix compare``; ``words`` is the whole command.

    Returns:
        Exit status.
    """
    given: dict[str, Any] = read_sweep(typed.sweep, typed.recipe) if typed.sweep else {}
    typed_axes = {"methods": typed.methods, "lrs": typed.lrs, "seeds": typed.seeds, "starts": typed.start}
    given |= {name: value for name, value in typed_axes.items() if value is not None}
    given |= {name: value for name in ("max_steps", "config") if (value := getattr(typed, name)) is not None}
    given["settings"] = (*given.get("settings", ()), *typed.set)  # of two with one key the recipe takes the last
    grid = make_grid(typed.recipe, wandb=typed.wandb, **given)
    if typed.dry_run:
        return dry_run(grid, typed.out, typed.jobs)
    return conduct(grid, typed.words, typed.out, typed.jobs)
