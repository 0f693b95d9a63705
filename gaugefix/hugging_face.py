"""Gauge projection in the Trainer of ``transformers``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from transformers import TrainerCallback

from gaugefix.callbacks.example_inputs import ExampleInputs
from gaugefix.callbacks.gauge_callback import check_interval
from gaugefix.callbacks.gauge_source import Analysed, GaugeSource
from gaugefix.callbacks.guard import guarded_act_
from gaugefix.errors import ProjectionWarning
from gaugefix.projection import solve
from gaugefix.slices import get_slice


class GaugeTrainerCallback(TrainerCallback):
    """Project a model onto a gauge slice while ``transformers.Trainer`` trains it, on one process or with DDP.

    Outputs are compared before and after each projection, and a projection that changed them is taken back. In
    Lightning use :class:`gaugefix.GaugeProjection`, which also counts, logs and resumes.

    Args:
        slice: name of a slice.
        every_n_steps: optimizer steps between two projections; the first is before training.
        inputs: keywords of one call of the model; by default ``model.dummy_inputs``.

    Attributes:
        projections, rolled_back: how many were made, and taken back.
        invariance_error: largest relative change of the outputs over the projections made.

    Example:
        >>> callback = GaugeTrainerCallback("minimal_norm", every_n_steps=100)
    """

    def __init__(
        self, slice: str = "minimal_norm", every_n_steps: int = 100, inputs: Mapping[str, Any] | None = None
    ) -> None:
        get_slice(slice)
        check_interval(every_n_steps)
        self.slice, self.every_n_steps, self.inputs = slice, every_n_steps, inputs
        self.analysed: Analysed | None = None
        self.projections = self.rolled_back = 0
        self.invariance_error = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Find the gauge group, and project."""
        source, model = GaugeSource(None, inputs_needed=True), given["model"]
        source.analyse("", model, ExampleInputs((), dict(self.inputs or model.dummy_inputs)))
        self.analysed = source.found
        self._project(given["optimizer"])

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Project when due."""
        if state.global_step % self.every_n_steps == 0:
            self._project(given["optimizer"])

    @torch.no_grad()
    def _project(self, optimizer: Any) -> None:
        if self.analysed is None:
            return
        element = solve(self.analysed.module, self.analysed.gauge, self.slice)
        optimizers = [getattr(optimizer, "optimizer", optimizer)]  # accelerate wraps it
        kept, error = guarded_act_(self.analysed, element, optimizers, [], "error", _agree)
        self.projections, self.rolled_back = self.projections + kept, self.rolled_back + (not kept)
        if kept:
            self.invariance_error = max(self.invariance_error, error)
        else:
            warnings.warn(f"A projection changed outputs by {error:.1e}: taken back.", ProjectionWarning, stacklevel=2)


def _agree(kept: bool) -> bool:
    """One decision of all processes."""
    if not torch.distributed.is_initialized():
        return kept
    votes: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(votes, kept)
    return all(votes)
