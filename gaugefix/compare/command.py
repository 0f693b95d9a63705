"""``gaugefix compare``: from what was typed to a grid."""

from __future__ import annotations

from argparse import Namespace

from gaugefix.compare.conduct import conduct
from gaugefix.compare.grid import DEFAULT_METHODS, STARTS, make_grid


def compare(typed: Namespace) -> int:
    """Run the comparison, or say what it would be.

    Args:
        typed: the options of ``gaugefix compare``; ``words`` is the whole command.

    Returns:
        Exit status.
    """
    grid = make_grid(
        typed.recipe,
        methods=typed.methods or DEFAULT_METHODS,
        lrs=typed.lrs or (),
        seeds=typed.seeds or (0, 1, 2),
        starts=typed.start or STARTS[:1],
        max_steps=typed.max_steps,
        config=typed.config,
        settings=tuple(typed.set),
        wandb=typed.wandb,
    )
    return conduct(grid, typed.words, typed.out, typed.jobs)
