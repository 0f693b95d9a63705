"""GradientWatch: hands the gradients of real steps to the flat slice, and keeps its statistics in their gauge."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gaugefix.callbacks.gauge_source import Analysed
from gaugefix.callbacks.lightning_callback import Trainer
from gaugefix.callbacks.loss_scale import loss_scale
from gaugefix.projection import solve
from gaugefix.slices import Flat, GradientMoments, diagonal_part, dyadic
from gaugefix.slices.flat import CLIP, clipped
from gaugefix.symmetry import Element

OBSERVATIONS = 10
"""Gradients observed between two projections (fewer if there are fewer steps)."""
UNOBSERVED = (
    "Expected gradients for slice 'flat', got none: Lightning did not see the optimizer's steps. In manual "
    "optimization step the optimizers of self.optimizers(), not torch's own."
)


class GradientWatch:
    """The gradient statistics of one module over a fit, and over the fits that resume it."""

    def __init__(self) -> None:
        self.moments: GradientMoments | None = None
        self._module: nn.Module | None = None
        self._saved: Mapping[str, Any] | None = None
        self._owned: dict[tuple[int, int], dict[str, Tensor]] = {}
        self._calls: dict[int, int] = {}

    def attach(self, analysed: Analysed) -> GradientMoments:
        """Return the statistics for this module and group; those of a checkpoint or of the last fit go on."""
        if self.moments is None or self.moments.gauge is not analysed.gauge or self._module is not analysed.module:
            saved = self._saved if self.moments is None else self.moments.state_dict()
            self.moments = GradientMoments(analysed.gauge)
            if saved is not None:
                self.moments.load_state_dict(saved)
            self._saved = None
            self._module = analysed.module
            self._owned = {}
        return self.moments

    def observe(self, trainer: Trainer, analysed: Analysed, optimizer: Optimizer, interval: int) -> None:
        """Take in the gradients of one optimizer just before its step, at ten of ``interval`` steps.

        A parameter without gradient counts as one whose gradient is zero, as long as others have one: the loss of this
        step did not depend on it.
        """
        key = trainer.optimizers.index(optimizer) if optimizer in trainer.optimizers else 0
        self._calls[key] = self._calls.get(key, 0) + 1
        if self._calls[key] % max(1, interval // OBSERVATIONS):
            return
        moments = self.attach(analysed)
        owned = self._owned_by(optimizer, analysed, moments)
        gradients = {name: p.grad for name, p in owned.items()}
        if any(g is not None for g in gradients.values()):
            filled = {name: torch.zeros_like(owned[name]) if g is None else g for name, g in gradients.items()}
            moments.observe(filled, loss_scale(trainer, optimizer))

    @property
    def ready(self) -> bool:
        """Whether a gradient was observed."""
        return self.moments is not None and not self.moments.empty

    def aim(self, analysed: Analysed, powers_of_two: bool) -> tuple[Element, Element]:
        """Return the element that should act, and the one that leads onto the flat slice.

        The first is the second with every |log λ| cut at 0.1, or at one factor of two where only powers of two act.
        """
        gauge, slice = analysed.gauge, Flat(self.attach(analysed))
        if not powers_of_two:
            whole = solve(analysed.module, gauge, slice)
            return clipped(gauge, whole, CLIP), whole
        whole = solve(analysed.module, diagonal_part(gauge), slice)
        return dyadic(gauge, clipped(gauge, whole, math.log(2.0))), whole

    def follow(self, own: Analysed | None, analysed: Analysed, element: Element) -> None:
        """Move along with a projection of ``analysed``, be it another callback's.

        What a projection under other names moves (of a submodule, say) is forgotten and observed anew.

        Args:
            own: the module of these statistics; ``None`` if it is not known yet.
            analysed: the module that moved.
            element: what acted.
        """
        if own is None or (self.moments is None and self._saved is None):
            self._saved = None
            return
        moments = self.attach(own)
        if own.module is analysed.module:
            moments.transport_(element, analysed.gauge)
            return
        names = {name for symmetry, _ in element.steps for name in analysed.gauge[symmetry].parameters}
        tensors, here = analysed.gauge.check(analysed.module), moments.gauge.check(own.module)
        moved = {id(tensors[name]) for name in names}
        moments.clear(name for name in moments.names if id(here[name]) in moved)

    def state_dict(self) -> dict[str, Any] | None:
        """Plain tensors; ``None`` if there is nothing."""
        if self.moments is None:
            return None if self._saved is None else {**self._saved, "calls": dict(self._calls)}
        return {**self.moments.state_dict(), "calls": dict(self._calls)}

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Restore the statistics, as soon as the group is known."""
        self.moments, self._module, self._saved = None, None, state
        self._calls = {} if state is None else {int(key): int(calls) for key, calls in state["calls"].items()}

    def detach(self) -> None:
        """Let go of parameters that a new fit may replace."""
        self._owned = {}

    def _owned_by(self, optimizer: Optimizer, analysed: Analysed, moments: GradientMoments) -> dict[str, Tensor]:
        """The trained parameters of an optimizer that the statistics know, by name (kept: this runs at every step)."""
        key = (id(optimizer), sum(len(group["params"]) for group in optimizer.param_groups))
        if key not in self._owned:
            inside = {id(p) for group in optimizer.param_groups for p in group["params"]}
            tensors = analysed.gauge.check(analysed.module)
            self._owned[key] = {name: tensors[name] for name in moments.names if id(tensors[name]) in inside}
        return self._owned[key]
