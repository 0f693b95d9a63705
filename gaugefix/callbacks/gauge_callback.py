"""GaugeCallback: what projecting and measuring share: they act every so many optimizer steps."""

from __future__ import annotations

import time
from abc import abstractmethod
from typing import Any

from gaugefix.callbacks.gauge_source import Analysed
from gaugefix.callbacks.lightning_callback import LightningModule, Trainer
from gaugefix.callbacks.model_callback import ModelCallback
from gaugefix.callbacks.schedule import StepCounter
from gaugefix.errors import SettingError


class GaugeCallback(ModelCallback):
    """Counts real optimizer steps, and calls :meth:`act` when it is due.

    Args:
        every_n_steps: real optimizer steps between two actions.
        module: name of the submodule to analyse.
        name: tells two callbacks of one class apart.
        inputs_needed: whether :meth:`act` needs example inputs.
        conditional: whether symmetries that need nonzero gains belong to the group.
    """

    def __init__(
        self,
        every_n_steps: int,
        module: str | None,
        name: str | None,
        inputs_needed: bool,
        conditional: bool = False,
    ) -> None:
        check_interval(every_n_steps)
        super().__init__(module, name, inputs_needed, conditional)
        self._counter = StepCounter(every_n_steps)
        self.every_n_steps = every_n_steps
        self._fresh = self._unchecked = False

    # ---- what a subclass does ---------------------------------------------------------------------------------------
    @abstractmethod
    def act(self, trainer: Trainer, pl_module: LightningModule, analysed: Analysed) -> None:
        """Project or measure."""

    def look_at_first_step(self, trainer: Trainer, analysed: Analysed) -> None:
        """Called after the first real step of a fit, when optimizer states exist."""

    def forget(self) -> None:
        super().forget()
        self._counter.restore(0)

    @property
    def steps(self) -> int:
        """Real optimizer steps so far."""
        return self._counter.steps

    @property
    def acts_at_start(self) -> bool:
        """Whether to act on untrained parameters, before any interval is over."""
        return True

    @property
    def wanted(self) -> bool:
        """Whether to act at the end of an interval."""
        return True

    # ---- Lightning's hooks ------------------------------------------------------------------------------------------
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the model, and listen to the optimizers of this fit."""
        super().on_fit_start(trainer, pl_module)
        self._fresh, self._unchecked = self._counter.steps == 0, True
        self._counter.attach(trainer.optimizers)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act on the untrained model. Only now have weights and optimizers of a checkpoint been restored.

        Some strategies restore the state of callbacks so late too, after ``on_fit_start``.
        """
        if self._recognise(pl_module):
            self._fresh = self._counter.steps == 0
        if self._ready(trainer):
            self._start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Act when due. No graph is alive here, and every optimizer of the batch has stepped."""
        stepped, due = self._counter.advance()
        if not self._active:
            return
        self._collect(pl_module, stepped)
        found = self._source.found
        if found is None or not self._ready(trainer):
            return
        if stepped and self._unchecked:
            self._unchecked = False
            self.look_at_first_step(trainer, found)
        if due and self.wanted:
            self._run(trainer, pl_module, found)
        else:
            self._start(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "steps": self._counter.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._counter.restore(int(state_dict["steps"]))

    # ---- inside -----------------------------------------------------------------------------------------------------
    def _run(self, trainer: Trainer, pl_module: LightningModule, found: Analysed) -> None:
        self._fresh = False
        begun = time.perf_counter()
        self.act(trainer, pl_module, found)
        self.seconds += time.perf_counter() - begun

    def _start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = self._source.found
        if self._fresh and self.acts_at_start and found is not None:
            self._run(trainer, pl_module, found)

    def _release(self) -> None:
        self._counter.detach()
        super()._release()


def check_interval(every_n_steps: int) -> None:
    """Raise :class:`SettingError` for what is no interval of optimizer steps."""
    if type(every_n_steps) is not int or every_n_steps <= 0:
        raise SettingError(
            f"Expected a positive number of optimizer steps for every_n_steps, got {every_n_steps!r}. "
            "Give 1 or more; to switch the callback off, leave it out."
        )
