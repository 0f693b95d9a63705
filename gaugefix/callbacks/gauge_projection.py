"""GaugeProjection: keep the parameters on a gauge slice while they train."""

from __future__ import annotations

import math
import time
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.optim import Optimizer

from gaugefix.callbacks.agreement import all_or_none
from gaugefix.callbacks.averaged_copies import averaged_copies
from gaugefix.callbacks.gauge_callback import GaugeCallback
from gaugefix.callbacks.gauge_source import Analysed
from gaugefix.callbacks.gradient_watch import UNOBSERVED, GradientWatch
from gaugefix.callbacks.guard import guarded_act_, why_taken_back
from gaugefix.callbacks.interval import Interval
from gaugefix.callbacks.lightning_callback import LightningModule, Trainer, callbacks_of
from gaugefix.callbacks.training_dtype import training_dtype
from gaugefix.errors import NonFiniteError, ProjectionWarning, SettingError, SliceError, did_you_mean
from gaugefix.functional import distances, log_norms
from gaugefix.projection import solve
from gaugefix.sharding import reshard_
from gaugefix.slices import get_slice
from gaugefix.symmetry import Element
from gaugefix.transport import Policy, act_, attached

_PATIENCE = 3
"""Projections taken back in a row after which there are no more."""
_HISTORY = 10_000
"""Projections that are remembered."""

_EVERY, _EVERY_FLAT = 100, 20
"""Steps between two projections, at least; those onto the flat slice go but a tenth of a unit of log λ at a time.

In the measurement at ``gradient_moments.DECAY`` (there, with 0.99) 5 to 50 steps were alike, 4.6e-3 to 8.9e-3, and 100
too rare, 2.4e-2.
"""
_FLAT, _BEFORE_FLAT = "flat", "minimal_norm"
"""The slice that needs gradients, and where to start before there are any."""


class GaugeProjection(GaugeCallback):
    """Project the model onto a gauge slice every so many optimizer steps; its function does not change.

    Gradients, optimizer states and the averaged copies of Lightning's averaging callbacks move along. Only steps that
    changed parameters count, not accumulated batches or steps that a gradient scaler skipped. After each projection the
    outputs on a few rows are compared with those before; if they differ by more than rounding, everything is put back.

    On the slice 'flat' the squared gradients are least (Fisher-balanced). Gradients are observed ten times between two
    projections, each of which changes no scale by more than a factor e^0.1 (with dyadic: 2). At the start no gradient
    is known: at_start then brings the model to minimal norm. The term of a GaugeRegularizer belongs to them if that
    stands before the projection in the list.

    Every logger receives ``gauge/projections``, ``gauge/skipped`` and ``gauge/rolled_back``, the counters below, when
    one of them has changed, and so do ``trainer.callback_metrics``.

    Args:
        slice: Where on its orbit the model should be: 'minimal_norm', 'spectral', 'unit_norm' or 'flat'.
        every_n_steps: Optimizer steps between two projections. By default as often as the drift asks for: every 100 at
            first, up to every 1600 as long as projections move scales by less than 2 %; for 'flat' every 20.
        at_start: Whether to project an untrained model too (after the first batch if it has no example_input_array).
        dyadic: Round scale factors to powers of two, so that outputs keep every bit.
        module: Name of the submodule to analyse, such as 'encoder.backbone'; by default the LightningModule.
        name: Tells several projections of one Trainer apart: they log 'gauge/<name>/projections' and so on.
        unknown_optimizer: For optimizer states without a law of transport: 'error', 'reset' or 'ignore'.
        probe: Whether to compare outputs before and after, and to take a projection back that changed them.
        conditional: Whether symmetries belong to the group that hold only where no gain of a norm is zero, such as
            rotations of residual streams. Minimal norm does not use them, and small gains make them ill-conditioned.

    Attributes:
        gauge: The gauge group; None until it is known.
        projections: Projections made.
        skipped: Projections left out because a parameter was not finite, or the orbit did not meet the slice any more.
        rolled_back: Projections taken back because an output changed.
        invariance_error: Largest relative change of the outputs over all projections made; NaN without probe.
        history: For each projection made: step (trainer.global_step), drift_before and drift_after (the distances
            ‖log g*‖ to the slice; for 'flat' as far as the gradients tell, and at the start to minimal norm),
            invariance_error.
        seconds: Time spent on projections and on observing gradients.
        discovery_seconds: Time spent finding the gauge group.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[GaugeProjection("minimal_norm", every_n_steps=100)], accelerator="cpu",
        ...     logger=False, enable_checkpointing=False)
    """

    def __init__(
        self,
        slice: str = "minimal_norm",
        every_n_steps: int | None = None,
        at_start: bool = True,
        dyadic: bool = False,
        module: str | None = None,
        name: str | None = None,
        unknown_optimizer: Literal["error", "reset", "ignore"] = "error",
        probe: bool = True,
        conditional: bool = False,
    ) -> None:
        if unknown_optimizer not in get_args(Policy):
            raise SettingError(
                f"Expected a policy for unknown_optimizer, got {unknown_optimizer!r}. "
                + did_you_mean(str(unknown_optimizer), get_args(Policy))
            )
        get_slice(slice)
        self._interval = Interval(_EVERY) if every_n_steps is None and slice != _FLAT else None
        if every_n_steps is None:
            every_n_steps = _EVERY_FLAT if slice == _FLAT else _EVERY
        super().__init__(every_n_steps, module, name, probe, conditional)
        self.slice = slice
        self.at_start = at_start
        self.dyadic = dyadic
        self.unknown_optimizer: Policy = unknown_optimizer
        self.probe = probe
        self._watch = GradientWatch()
        self.forget()

    def forget(self) -> None:
        super().forget()
        self.projections = self.skipped = self.rolled_back = 0
        self.invariance_error = 0.0 if self.probe else math.nan
        self.history: list[dict[str, float]] = []
        self._in_a_row = 0
        self._strange: set[str] = set()
        self._started = self._told = False
        self._watch.load_state_dict(None)
        if self._interval is not None:
            self._interval.restart()

    @property
    def takes_shards(self) -> bool:
        return get_slice(self.slice).takes_shards

    @property
    def acts_at_start(self) -> bool:
        return self.at_start

    @property
    def wanted(self) -> bool:
        return self._interval is None or self._interval.is_due(self.steps)

    @property
    def idle_hooks(self) -> tuple[str, ...]:
        mine = type(self).on_before_optimizer_step is GaugeProjection.on_before_optimizer_step
        return ("on_before_optimizer_step",) if mine and self.slice != _FLAT else ()

    def averaged_models(self, trainer: Trainer, analysed: Analysed) -> list[nn.Module]:
        """Return the averaged copies of the analysed module; override it for an averaging of your own."""
        copies, strange = averaged_copies(trainer, analysed)
        for kind in set(strange) - self._strange:
            self._strange.add(kind)
            self.warn(
                trainer,
                f"Expected the averaged model of {kind} in its attribute _average_model, got none that fits. It stays "
                "in the gauge where it is, so that the average will mix gauges: override "
                "GaugeProjection.averaged_models, or leave one of the two callbacks out.",
                ProjectionWarning,
            )
        return copies

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Observe the gradients, where the slice is a matter of gradients."""
        found = self._source.found
        if self.slice == _FLAT and self._active and self.gauge is not None and found is not None:
            begun = time.perf_counter()
            self._watch.observe(trainer, found, optimizer, self.every_n_steps)
            self.seconds += time.perf_counter() - begun

    def _run(self, trainer: Trainer, pl_module: LightningModule, found: Analysed) -> None:
        """Act, log the counters where one has changed, and say when to act again."""
        before = self._counts()
        made = self.projections
        super()._run(trainer, pl_module, found)
        counts = self._counts()
        if self._interval is not None and self.steps >= self._interval.shortest:
            moved = self.history[-1]["drift_before"] if self.projections > made else math.nan
            drift = moved / math.sqrt(max(found.gauge.dimension, 1))
            # All processes project together: a rounding error must not tell them different steps.
            self._interval.note(self.steps, trainer.strategy.broadcast(drift))
        if counts != before:
            for logger in trainer.loggers:
                logger.log_metrics(counts, step=trainer.global_step)
            trainer.callback_metrics.update({name: torch.tensor(count) for name, count in counts.items()})

    def _counts(self) -> dict[str, float]:
        prefix = f"gauge/{self.name}" if self.name else "gauge"
        return {f"{prefix}/{what}": float(getattr(self, what)) for what in ("projections", "skipped", "rolled_back")}

    @torch.no_grad()
    def act(self, trainer: Trainer, pl_module: LightningModule, analysed: Analysed) -> None:
        """Project."""
        reshard_(pl_module)
        flat = self.slice == _FLAT and (self._started or not self.at_start)
        self._started = True
        if flat and not self._watch.ready:
            self._unobserved(trainer)
            return
        try:
            with all_or_none(trainer):
                if flat:
                    element, whole = self._watch.aim(analysed, self.dyadic)
                else:
                    slice = _BEFORE_FLAT if self.slice == _FLAT else self.slice
                    element = whole = solve(analysed.module, analysed.gauge, slice, self.dyadic)
            error = self._move(trainer, analysed, element)
        except (NonFiniteError, SliceError) as reason:
            if isinstance(reason, SliceError) and not self.projections:
                raise  # the slice is not for this model
            if not self.skipped:
                self.warn(trainer, f"No projection at step {trainer.global_step}: {reason}", ProjectionWarning)
            self.skipped += 1
            return
        if error is None:
            return
        if flat:
            after = math.sqrt(sum(distances(analysed.gauge, element, whole).values()))
        else:
            after = self._left(analysed, slice)
        self.projections += 1
        self.invariance_error = max(error, self.invariance_error)
        entry = {"step": trainer.global_step, "drift_before": _size(analysed, whole)}
        self.history.append({**entry, "drift_after": after, "invariance_error": error})
        del self.history[:-_HISTORY]

    def _left(self, analysed: Analysed, slice: str) -> float:
        """The distance to the slice after a projection: near it, where solving is cheapest."""
        try:
            return _size(analysed, solve(analysed.module, analysed.gauge, slice))
        except SliceError:  # parameters that grow without limit
            return math.nan

    def _unobserved(self, trainer: Trainer) -> None:
        """Without any gradient after more than one step, none will come."""
        if self.steps > 1 and not self._told:
            self._told = True
            self.warn(trainer, UNOBSERVED, ProjectionWarning)

    def _move(self, trainer: Trainer, analysed: Analysed, element: Element) -> float | None:
        """Move everything; return the change of the outputs (NaN without probe), or None if it was taken back."""
        copies = self.averaged_models(trainer, analysed)
        optimizers, policy = trainer.optimizers, self.unknown_optimizer
        if not self.probe or analysed.inputs is None:
            act_(analysed.module, analysed.gauge, element, optimizers, averaged=copies, unknown_optimizer=policy)
            self._tell(trainer, analysed, element)
            return math.nan
        kept, error = guarded_act_(
            analysed,
            element,
            optimizers,
            copies,
            policy,
            agree=trainer.strategy.reduce_boolean_decision,
            around=lambda: training_dtype(trainer),
            root=trainer.lightning_module,
        )
        self._in_a_row = 0 if kept else self._in_a_row + 1
        if kept:
            self._tell(trainer, analysed, element)
            return error
        self.rolled_back += 1
        self.warn(trainer, why_taken_back(trainer.global_step, error, analysed.module), ProjectionWarning)
        if self._in_a_row >= _PATIENCE:
            self.switch_off()
            self.warn(
                trainer,
                f"{_PATIENCE} projections in a row were taken back: GaugeProjection is off until the next fit.",
                ProjectionWarning,
            )
        return None

    def _tell(self, trainer: Trainer, analysed: Analysed, element: Element) -> None:
        """Take the gradient statistics of all projections along."""
        for callback in callbacks_of(trainer, GaugeProjection):
            callback._watch.follow(callback._source.found, analysed, element)

    def look_at_first_step(self, trainer: Trainer, analysed: Analysed) -> None:
        """Refuse an optimizer whose state cannot move now, not at the first projection hours later."""
        reshard_(analysed.module)
        attached(analysed.gauge.check(analysed.module), trainer.optimizers, self.unknown_optimizer)

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "projections": self.projections,
            "skipped": self.skipped,
            "rolled_back": self.rolled_back,
            "invariance_error": self.invariance_error,
            "history": [dict(entry) for entry in self.history],
            **({} if self._interval is None else {"interval": self._interval.state_dict()}),
            **({"started": self._started, "moments": self._watch.state_dict()} if self.slice == _FLAT else {}),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.projections = int(state_dict["projections"])
        self.skipped = int(state_dict["skipped"])
        self.rolled_back = int(state_dict["rolled_back"])
        self.invariance_error = float(state_dict["invariance_error"])
        self.history = [dict(entry) for entry in state_dict["history"]]
        if self._interval is not None and "interval" in state_dict:
            self._interval.load_state_dict(state_dict["interval"])
        self._started = bool(state_dict.get("started", self.steps > 0))
        self._watch.load_state_dict(state_dict.get("moments"))

    def _release(self) -> None:
        self._watch.detach()
        super()._release()


def _size(analysed: Analysed, element: Element) -> float:
    return math.sqrt(sum(log_norms(analysed.gauge, element).values()))
