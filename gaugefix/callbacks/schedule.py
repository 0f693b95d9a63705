"""StepCounter: real optimizer steps, and whether something is due."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle


class StepCounter:
    """Count the optimizer steps that changed parameters, by torch's own step hooks.

    ``trainer.global_step`` also counts steps that a gradient scaler skipped or whose ``training_step`` returned None,
    and counts every optimizer of manual optimization. Here a step is real if its gradients exist and are finite; with
    several optimizers the one with the most steps counts.

    Args:
        every: how many steps lie between two points at which something is due.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.steps = 0
        self._seen = 0
        self._base = 0
        self._counts: dict[int, int] = {}
        self._handles: list[RemovableHandle] = []

    def attach(self, optimizers: Iterable[Optimizer]) -> None:
        """Start counting; the count goes on from ``steps``."""
        self.detach()
        self._base, self._counts = self.steps, {}

        def count(key: int, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            if is_real(optimizer):
                self._counts[key] = self._counts.get(key, 0) + 1
                self.steps = self._base + max(self._counts.values())

        self._handles = [o.register_step_post_hook(partial(count, k)) for k, o in enumerate(optimizers)]

    def detach(self) -> None:
        """Stop counting."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def advance(self) -> tuple[bool, bool]:
        """Return whether steps were made since the last call, and whether a multiple of ``every`` was reached."""
        before, self._seen = self._seen, self.steps
        return self.steps > before, self.steps // self.every > before // self.every

    def restore(self, steps: int) -> None:
        """Go on from ``steps``, in phase; while it is attached too."""
        self.steps = self._seen = self._base = steps
        self._counts = {}


def is_real(optimizer: Optimizer) -> bool:
    """Whether the step that an optimizer has just made was real: it had gradients, and no scaler skipped it."""
    found_inf: torch.Tensor | None = getattr(optimizer, "found_inf", None)  # set by a GradScaler for fused optimizers
    if found_inf is not None and float(found_inf) > 0.0:
        return False
    return any(p.grad is not None for group in optimizer.param_groups for p in group["params"])
