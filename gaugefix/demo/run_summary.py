"""The numbers at the end of a run, under the same names for every recipe."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from typing import Any, Literal, Protocol, runtime_checkable

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, WandbLogger
from torch import Tensor

from gaugefix.callbacks import GaugeProjection, GaugeRegularizer, OrbitDrift
from gaugefix.callbacks.lightning_callback import callbacks_of
from gaugefix.callbacks.model_callback import ModelCallback
from gaugefix.demo.jsonl_logger import JsonlLogger


@runtime_checkable
class Timed(Protocol):
    """A callback that counts the ``seconds`` it spends, as every one of gaugefix's does."""

    seconds: float


class RunSummary(Callback):
    """Writes ``val_acc_best``, ``gauge_drift_final``, ``overhead_pct`` and so on to the summary of every logger.

    What a datamodule keeps in its attribute ``facts`` is written too.

    ``overhead_pct`` is 100 · s / (t − s) with s the seconds spent in gaugefix's callbacks and t the seconds spent
    in training, validation left out; discovery, which happens once before, is ``discovery_seconds``. Training stops
    when the loss is not finite; ``diverged`` then says so. ``step_seconds`` is the median over all steps, from the end
    of one batch to that of the next, callbacks included.

    Args:
        settings: what was run, as flat keys: recipe, method, slice, regularizer, strength, seed, lr and others.
        monitor: the validation metric whose best value counts, such as ``val/acc``.
        mode: max if more of it is better, min if less.
    """

    def __init__(
        self, settings: Mapping[str, Any], monitor: str = "val/acc", mode: Literal["max", "min"] = "max"
    ) -> None:
        self.settings = dict(settings)
        self.monitor = monitor
        self.mode = mode
        self.values: dict[str, Any] = {}
        self._best = math.nan
        self._loss: Tensor | None = None
        self._first_loss: Tensor | None = None
        self._diverged = False
        self._residual_max = math.nan
        self._last_drift: object = None
        self._logged: dict[str, int] = {}
        self._started = self._validation_started = self._stepped = 0.0
        self._steps: list[float] = []
        self._validation = 0.0
        self._spent_earlier = self._spent_at_start = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        facts = getattr(trainer.datamodule, "facts", {})  # type: ignore[attr-defined]
        for logger in trainer.loggers:
            logger.log_hyperparams({**self.settings, **facts})
        # A resumed run brings the history and the seconds of the runs before.
        for callback in callbacks_of(trainer, GaugeProjection):
            self._logged[callback.state_key] = len(callback.history)
        self._spent_earlier = seconds_spent(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log_projections(trainer)
        self._spent_at_start = seconds_spent(trainer) - self._spent_earlier
        self._started = self._stepped = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        self._steps.append(now - self._stepped)
        self._stepped = now
        self._loss = outputs["loss"].detach()
        self._first_loss = self._loss if self._first_loss is None else self._first_loss
        self._log_projections(trainer)
        for drift in callbacks_of(trainer, OrbitDrift):
            if drift.last is not None and drift.last is not self._last_drift:
                self._last_drift = drift.last
                self._residual_max = greater(self._residual_max, drift.last.residual)
        if not math.isfinite(float(self._loss)):
            self._diverged = True
            trainer.should_stop = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation_started = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._started:
            self._validation += time.perf_counter() - self._validation_started
            value = float(trainer.callback_metrics.get(self.monitor, math.nan))
            self._best = greater(self._best, value) if self.mode == "max" else -greater(-self._best, -value)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._started and not self.values:
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        self.values = self._measure(trainer, time.perf_counter() - self._started + self._spent_at_start)
        for logger in trainer.loggers:
            write_summary(logger, self.values)

    def _log_projections(self, trainer: Trainer) -> None:
        """Write what the projections since the last call did, one line each."""
        for callback in callbacks_of(trainer, GaugeProjection):
            for entry in callback.history[self._logged.get(callback.state_key, 0) :]:
                row = {f"gauge/{key}": value for key, value in entry.items() if key != "step"}
                for logger in trainer.loggers:
                    logger.log_metrics(row, step=int(entry["step"]))
            self._logged[callback.state_key] = len(callback.history)

    def _measure(self, trainer: Trainer, seconds: float) -> dict[str, Any]:
        drifts, projections = callbacks_of(trainer, OrbitDrift), callbacks_of(trainer, GaugeProjection)
        gauged = callbacks_of(trainer, ModelCallback)
        last = next((c.last for c in drifts if c.last is not None), None)
        spent = seconds_spent(trainer) - self._spent_earlier
        discovery = sum(c.discovery_seconds for c in gauged)
        training = seconds - self._validation
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        name = self.monitor.replace("/", "_")
        return {
            "steps": trainer.global_step,
            "seconds": seconds,
            "step_seconds": statistics.median(self._steps) if self._steps else None,
            "validation_seconds": self._validation,
            f"{name}_best": self._best,
            f"{name}_final": metrics.get(self.monitor),
            "val_loss_final": metrics.get("val/loss"),
            "train_loss_first": None if self._first_loss is None else float(self._first_loss),
            "train_loss_final": None if self._loss is None else float(self._loss),
            "gauge_drift_final": None if last is None else last.total,
            "gauge_residual_final": None if last is None else last.residual,
            "gauge_residual_max": self._residual_max,
            "invariance_error_max": max((c.invariance_error for c in projections), default=None),
            "projections": sum(c.projections for c in projections),
            "projection_seconds": sum(c.seconds for c in projections),
            "regularizer_seconds": sum(c.seconds for c in callbacks_of(trainer, GaugeRegularizer)),
            "drift_seconds": sum(c.seconds for c in drifts),
            "discovery_seconds": discovery,
            "overhead_pct": 100 * spent / (training - spent) if training > spent else None,
            "diverged": self._diverged,
        }


def seconds_spent(trainer: Trainer) -> float:
    """Return the seconds that gaugefix's callbacks have spent so far."""
    return sum((callback.seconds for callback in callbacks_of(trainer, Timed)), 0.0)


def greater(a: float, b: float) -> float:
    """Return the greater number, NaN counting as none."""
    return b if math.isnan(a) or b > a else a


def write_summary(logger: Logger, values: Mapping[str, Any]) -> None:
    """Write headline numbers to a logger that keeps a summary: ours, or that of W&B."""
    if isinstance(logger, JsonlLogger):
        logger.log_summary(values)
    elif isinstance(logger, WandbLogger):
        logger.experiment.summary.update(dict(values))
