"""GaugeCallback: what projecting and measuring share: when, on which module, and how counts are kept."""

from __future__ import annotations

import time
import warnings
import weakref
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from gaugefix.callbacks.fit_checks import check_checkpoint, check_parameters, check_strategy
from gaugefix.callbacks.gauge_source import Analysed, GaugeSource
from gaugefix.callbacks.lightning_callback import LightningCallback, LightningModule, Trainer, adopt
from gaugefix.callbacks.schedule import StepCounter
from gaugefix.callbacks.submodule import parameter_shapes
from gaugefix.errors import CheckpointError, NoEffectWarning, SettingError
from gaugefix.slices import get_slice
from gaugefix.symmetry import GaugeGroup

_VERSION = 1


class GaugeCallback(LightningCallback):
    """Counts real optimizer steps, finds the gauge group, and calls :meth:`act` when it is due.

    Args:
        slice: name of a slice.
        every_n_steps: real optimizer steps between two actions.
        module: name of the submodule to analyse.
        name: tells two callbacks of one class apart.
        inputs_needed: whether :meth:`act` needs example inputs.
        conditional: whether symmetries that need nonzero gains belong to the group.
    """

    def __init__(
        self,
        slice: str,
        every_n_steps: int,
        module: str | None,
        name: str | None,
        inputs_needed: bool,
        conditional: bool = False,
    ) -> None:
        if type(every_n_steps) is not int or every_n_steps <= 0:
            raise SettingError(
                f"Expected a positive number of optimizer steps for every_n_steps, got {every_n_steps!r}. "
                "Give 1 or more; to switch the callback off, leave it out."
            )
        get_slice(slice)
        adopt()
        super().__init__()
        self._counter = StepCounter(every_n_steps)
        self.slice = slice
        self.every_n_steps = every_n_steps
        self.module = module
        self.name = name
        self.gauge: GaugeGroup | None = None
        self.seconds = 0.0
        self.discovery_seconds = 0.0
        self.conditional = conditional
        self._source = GaugeSource(module, inputs_needed, conditional)
        self._model: weakref.ref[nn.Module] | None = None
        self._saved_parameters: dict[str, list[int]] | None = None
        self._active = self._fresh = self._unchecked = False

    # ---- what a subclass does ---------------------------------------------------------------------------------------
    @abstractmethod
    def act(self, trainer: Trainer, pl_module: LightningModule, analysed: Analysed) -> None:
        """Project or measure."""

    def look_at_first_step(self, trainer: Trainer, analysed: Analysed) -> None:
        """Called after the first real step of a fit, when optimizer states exist."""

    def forget(self) -> None:
        """Forget what belongs to another model."""
        self._counter.restore(0)
        self.seconds = self.discovery_seconds = 0.0

    @property
    def steps(self) -> int:
        """Real optimizer steps so far."""
        return self._counter.steps

    def switch_off(self) -> None:
        """Do nothing more in this fit."""
        self._active = False

    @property
    def acts_at_start(self) -> bool:
        """Whether to act on untrained parameters, before any interval is over."""
        return True

    # ---- Lightning's hooks ------------------------------------------------------------------------------------------
    @property
    def state_key(self) -> str:
        """Key in checkpoints: ``module`` and ``name`` keep several callbacks apart."""
        return self._generate_state_key(module=self.module, name=self.name)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot work before anything is spent on it."""
        if stage != "fit":
            return
        check_strategy(trainer)
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        same = [c for c in callbacks if type(c) is type(self) and c.state_key == self.state_key]
        if len(same) > 1:
            kind = type(self).__name__
            raise SettingError(
                f"Expected a name of its own for every {kind} of one module, got {len(same)} with module="
                f"{self.module!r} and name={self.name!r}. Remove one (a configuration file and the command line may "
                f"both have added it), or give each a name: {kind}(name='...')."
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the model, and listen to the optimizers of this fit."""
        check_parameters(pl_module)
        saved, self._saved_parameters = self._saved_parameters, None
        if saved is not None:
            check_checkpoint(saved, parameter_shapes(pl_module, self.module), type(self).__name__)
        elif self._model is None or self._model() is not pl_module:
            self.forget()
        self._model = weakref.ref(pl_module)
        self.gauge = None
        self._active, self._fresh, self._unchecked = True, self._counter.steps == 0, True
        self._counter.attach(trainer.optimizers)
        with self._discovery():
            self._source.attach(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act on the untrained model. Only now have weights and optimizers of a checkpoint been restored."""
        if self._ready(trainer):
            self._start(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Listen to the first calls of the model if there is no example input."""
        if self._active:
            self._source.listen(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Act when due. No graph is alive here, and every optimizer of the batch has stepped."""
        stepped, due = self._counter.advance()
        if not self._active:
            return
        if self._source.found is None:
            with self._discovery():
                self._source.collect(pl_module, stepped)
        found = self._source.found
        if found is None or not self._ready(trainer):
            return
        if stepped and self._unchecked:
            self._unchecked = False
            self.look_at_first_step(trainer, found)
        if due:
            self._run(trainer, pl_module, found)
        else:
            self._start(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let go of model and optimizers."""
        self._release()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of model and optimizers."""
        self._release()

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, names and tensors, so that a checkpoint loads with ``weights_only=True``."""
        model = self._model() if self._model is not None else None
        parameters = parameter_shapes(model, self.module) if model is not None else self._saved_parameters
        return {
            "version": _VERSION,
            "steps": self._counter.steps,
            "seconds": self.seconds,
            "discovery_seconds": self.discovery_seconds,
            "parameters": parameters,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counts.

        Raises:
            CheckpointError: if another version wrote the state.
        """
        if state_dict.get("version") != _VERSION:
            raise CheckpointError(
                f"Expected state of version {_VERSION} for {type(self).__name__}, got {state_dict.get('version')}. "
                "Resume with the version of gaugefix that wrote the checkpoint."
            )
        self.forget()
        self._counter.restore(int(state_dict["steps"]))
        self.seconds = float(state_dict["seconds"])
        self.discovery_seconds = float(state_dict["discovery_seconds"])
        self._saved_parameters = state_dict["parameters"]

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

    def _ready(self, trainer: Trainer) -> bool:
        """Whether there is a gauge group with something to do."""
        found = self._source.found
        if found is None or not self._active:
            return False
        if self.gauge is None:
            self.gauge = found.gauge
            self._active = any(s.group.dimension for s in found.gauge.applied)
            if not self._active:
                self.warn(
                    trainer,
                    f"{type(self).__name__} does nothing: no continuous symmetry of {type(found.module).__name__} "
                    f"holds while it trains{' with dropout' if found.gauge.dropout else ''}. "
                    "print(gaugefix.discover(model, args)) names what blocks them.",
                    NoEffectWarning,
                )
        return self._active

    def warn(self, trainer: Trainer, message: str, category: type[Warning]) -> None:
        """Warn once, not on every process."""
        if trainer.is_global_zero:
            warnings.warn(message, category, stacklevel=2)

    @contextmanager
    def _discovery(self) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.discovery_seconds += time.perf_counter() - begun

    def _release(self) -> None:
        self._counter.detach()
        self._source.detach()
