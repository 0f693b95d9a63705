"""VerticalFraction: log how much of an optimizer step, or of a regularizer, only changes the gauge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gaugefix.callbacks.gauge_callback import GaugeCallback
from gaugefix.callbacks.gauge_regularizer import GaugeRegularizer
from gaugefix.callbacks.gauge_source import Analysed
from gaugefix.callbacks.lightning_callback import LightningModule, Trainer, callbacks_of
from gaugefix.callbacks.update_recorder import UpdateRecorder
from gaugefix.errors import GaugeError, ProjectionWarning
from gaugefix.functional.orbit_tangent import OrbitTangent
from gaugefix.functional.vertical_fraction import counted_names
from gaugefix.symmetry import named_tensors


class VerticalFraction(GaugeCallback):
    """Log the vertical fraction ‖Π_vert Δ‖²/‖Δ‖² of every ``every_n_steps``-th optimizer step; nothing is changed.

    Π_vert projects onto the directions in which the gauge group moves the parameters
    (:func:`gaugefix.functional.vertical_fraction`). What every logger receives, at ``trainer.global_step``:

    - ``gauge/vertical_fraction``: of the update Δ that the optimizer made, without projections behind it. 0 for plain
      gradient descent; momentum, Adam's scaling, weight decay and gauge-fixing terms make it larger;
    - ``gauge/<term>/vertical_fraction``: of the gradient of the term of each GaugeRegularizer of the same module. 1 for
      a term that only fixes the gauge, less as far as it pushes on the function too.

    Between measurements nothing is copied or computed. At one, a copy of the parameters is kept during the step.

    Args:
        every_n_steps: Optimizer steps between two measurements.
        module: Name of the submodule to analyse, such as 'encoder.backbone'; by default the LightningModule.
        name: Tells several measurements of one Trainer apart: they log 'gauge/<name>/vertical_fraction'.

    Attributes:
        gauge: The gauge group; None until it is known.
        last: The last vertical fraction of an update; None before the first.
        seconds: Time spent on measurements.
        discovery_seconds: Time spent finding the gauge group.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[VerticalFraction(every_n_steps=50)], accelerator="cpu", logger=False,
        ...     enable_checkpointing=False)
    """

    def __init__(self, every_n_steps: int = 50, module: str | None = None, name: str | None = None) -> None:
        super().__init__(every_n_steps, module, name, inputs_needed=False)
        self._recorder = UpdateRecorder(self._next_step_is_due, self._named)
        self.forget()

    def forget(self) -> None:
        super().forget()
        self.last: float | None = None
        self._warned = False

    @property
    def acts_at_start(self) -> bool:
        return False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        self._recorder.attach(trainer.optimizers)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure when due."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._recorder.clear()

    @torch.no_grad()
    def act(self, trainer: Trainer, pl_module: LightningModule, analysed: Analysed) -> None:
        """Measure and log."""
        before, update = self._recorder.before, self._recorder.update
        if not update:  # the group was not known when the step was made
            return
        prefix = f"gauge/{self.name}" if self.name else "gauge"
        try:
            tangent = OrbitTangent(analysed.gauge, before, counted_names(analysed.module, analysed.gauge))
            self.last = tangent.fraction(update)
            metrics = {f"{prefix}/vertical_fraction": self.last}
            headline = dict(metrics)
            for term, gradient in self._term_gradients(trainer, analysed, before).items():
                metrics[f"{prefix}/{term}/vertical_fraction"] = tangent.fraction(gradient)
        except GaugeError as reason:
            if not self._warned:
                self.warn(trainer, f"No vertical fraction at step {trainer.global_step}: {reason}", ProjectionWarning)
            self._warned = True
            return
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in headline.items()})
        trainer.progress_bar_metrics.update(headline)

    # ---- inside -----------------------------------------------------------------------------------------------------
    def _next_step_is_due(self) -> bool:
        return self._active and (self.steps + 1) % self.every_n_steps == 0

    def _named(self) -> Mapping[str, Tensor] | None:
        """What the group reads, and all other parameters, each once."""
        found = self._source.found
        if found is None:
            return None
        tensors, taken = {}, set[int]()
        every = named_tensors(found.module)
        parameters = {id(p) for p in found.module.parameters()}
        for name in (*found.gauge.shapes, *every):
            tensor = every[name]
            if name in found.gauge.shapes or (id(tensor) in parameters and id(tensor) not in taken):
                tensors[name] = tensor
                taken.add(id(tensor))
        return tensors

    def _term_gradients(
        self, trainer: Trainer, analysed: Analysed, at: Mapping[str, Tensor]
    ) -> dict[str, dict[str, Tensor]]:
        """The gradient of every regularizer's term, of strength 1, by the name under which it logs."""
        trained = {n for n, p in named_tensors(analysed.module).items() if n in at and p.requires_grad}
        gradients = {}
        for regularizer in callbacks_of(trainer, GaugeRegularizer):
            if regularizer.module != self.module:
                continue
            found = {name: torch.zeros_like(at[name]) for name in trained}
            regularizer.gauge_term.add_gradient_(analysed.gauge, at, found, 1.0)
            label = f"{regularizer.name}/{regularizer.term}" if regularizer.name else regularizer.term
            gradients[label] = found
        return gradients

    def _release(self) -> None:
        self._recorder.detach()
        super()._release()
