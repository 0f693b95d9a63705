"""OrbitDrift: log how far the parameters have moved along their orbit."""

from __future__ import annotations

import math
from typing import Any

import torch

from gaugefix.callbacks.gauge_callback import GaugeCallback
from gaugefix.callbacks.gauge_source import Analysed
from gaugefix.callbacks.lightning_callback import LightningModule, Trainer
from gaugefix.errors import NonFiniteError, ProjectionWarning
from gaugefix.functional import Drift, distances, drift
from gaugefix.sharding import reshard_
from gaugefix.slices import get_slice
from gaugefix.symmetry import Element

_FAR = 0.03
"""Rms of log λ from which it is worth a pass over the parameters to start solving at the last measurement."""


class OrbitDrift(GaugeCallback):
    """Log the distance to a gauge slice every ``every_n_steps`` optimizer steps; nothing is changed.

    What every logger receives, at ``trainer.global_step``:

    - ``gauge/drift``: ‖log g*‖, the distance to the slice along the orbit;
    - ``gauge/residual``: the residual of the slice, 0 exactly on it;
    - ``gauge/step_drift``: the motion along the orbit since the last measurement (projections in between count);
    - ``gauge/<symmetry>/drift``: the distance per symmetry, as root mean square over its generators.

    The first two are in the progress bar and in ``trainer.callback_metrics`` too, for EarlyStopping and the like.
    Callbacks act in the order of the list: after GaugeProjection, the drift of the projected model is logged.

    Args:
        every_n_steps: Optimizer steps between two measurements.
        slice: The slice to measure from: 'minimal_norm', 'spectral' or 'unit_norm'.
        module: Name of the submodule to analyse, such as 'encoder.backbone'; by default the LightningModule.
        name: Tells several measurements of one Trainer apart: they log 'gauge/<name>/drift' and so on.
        per_symmetry: Whether to log every symmetry apart.
        conditional: Whether symmetries that need nonzero gains belong to the group (see GaugeProjection).

    Attributes:
        gauge: The gauge group; None until it is known.
        last: The last measurement; None before the first.
        seconds: Time spent on measurements.
        discovery_seconds: Time spent finding the gauge group.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[OrbitDrift(every_n_steps=50)], accelerator="cpu", logger=False,
        ...     enable_checkpointing=False)
    """

    def __init__(
        self,
        every_n_steps: int = 50,
        slice: str = "minimal_norm",
        module: str | None = None,
        name: str | None = None,
        per_symmetry: bool = True,
        conditional: bool = False,
    ) -> None:
        get_slice(slice)
        super().__init__(every_n_steps, module, name, inputs_needed=False, conditional=conditional)
        self.slice = slice
        self.per_symmetry = per_symmetry
        self.forget()

    def forget(self) -> None:
        super().forget()
        self.last: Drift | None = None
        self._before: Element | None = None
        self._warned = False

    @property
    def takes_shards(self) -> bool:
        return get_slice(self.slice).takes_shards

    @torch.no_grad()
    def act(self, trainer: Trainer, pl_module: LightningModule, analysed: Analysed) -> None:
        """Measure and log."""
        reshard_(pl_module)
        try:
            self.last = drift(analysed.module, analysed.gauge, self.slice, near=self._near())
        except NonFiniteError as reason:
            if not self._warned:
                self.warn(trainer, f"No drift at step {trainer.global_step}: {reason}", ProjectionWarning)
            self._warned = True
            return
        prefix = f"gauge/{self.name}" if self.name else "gauge"
        headline = {f"{prefix}/drift": self.last.total, f"{prefix}/residual": self.last.residual}
        metrics = dict(headline)
        if self._before is not None:
            squares = distances(analysed.gauge, self._before, self.last.element)
            metrics[f"{prefix}/step_drift"] = math.sqrt(sum(squares.values()))
        self._before = self.last.element
        if self.per_symmetry:
            metrics |= {f"{prefix}/{name}/drift": value for name, value in self.last.per_symmetry.items()}
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)
        # Not pl_module.log: once it was called, Lightning collects its values again in every later batch (55 µs).
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in headline.items()})
        trainer.progress_bar_metrics.update(headline)

    def _near(self) -> Element | None:
        """Where to start solving: far from the slice, at the last measurement."""
        return self._before if self.last is not None and self.last.rms > _FAR else None

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "before": None if self._before is None else self._before.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        before = state_dict["before"]
        self._before = None if before is None else Element.from_state_dict(before)
