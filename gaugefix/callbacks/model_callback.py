"""ModelCallback: what every callback of ours shares: which model it is about, its gauge group, and its checkpoints."""

from __future__ import annotations

import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from torch import nn

from gaugefix.callbacks.agreement import check_agreement
from gaugefix.callbacks.fit_checks import check_callbacks, check_checkpoint, check_parameters, check_strategy
from gaugefix.callbacks.gauge_source import GaugeSource
from gaugefix.callbacks.lightning_callback import LightningCallback, LightningModule, Trainer, adopt, silence
from gaugefix.callbacks.submodule import parameter_shapes
from gaugefix.callbacks.training_dtype import training_dtype
from gaugefix.errors import CheckpointError, NoEffectWarning, SettingError
from gaugefix.symmetry import GaugeGroup

_VERSION = 1


class ModelCallback(LightningCallback):
    """Finds the gauge group of the module in training; refuses what cannot work, once and early.

    Args:
        module: name of the submodule to analyse.
        name: tells two callbacks of one class apart.
        inputs_needed: whether example inputs are needed even if the gauge group is given by hand.
        conditional: whether symmetries that need nonzero gains belong to the group.
    """

    def __init__(self, module: str | None, name: str | None, inputs_needed: bool, conditional: bool = False) -> None:
        adopt()
        super().__init__()
        self.module = module
        self.name = name
        self.gauge: GaugeGroup | None = None
        self.seconds = 0.0
        self.discovery_seconds = 0.0
        self.conditional = conditional
        self._source = GaugeSource(module, inputs_needed, conditional)
        self._model: weakref.ref[nn.Module] | None = None
        self._saved_parameters: dict[str, list[int]] | None = None
        self._active = False

    @property
    def takes_shards(self) -> bool:
        """Whether it works on parameters that ``fully_shard`` has sharded, as it is set."""
        return False

    @property
    def idle_hooks(self) -> tuple[str, ...]:
        """Hooks of every batch that have nothing to do, as it is set."""
        return ()

    def forget(self) -> None:
        """Forget what belongs to another model."""
        self.seconds = self.discovery_seconds = 0.0

    def switch_off(self) -> None:
        """Do nothing more in this fit."""
        self._active = False

    # ---- Lightning's hooks ------------------------------------------------------------------------------------------
    @cached_property  # Lightning reads it at every hook
    def state_key(self) -> str:
        """Key in checkpoints: ``module`` and ``name`` keep several callbacks apart."""
        return self._generate_state_key(module=self.module, name=self.name)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot work before anything is spent on it."""
        silence(self, self.idle_hooks)
        if stage != "fit":
            return
        check_strategy(trainer, self.takes_shards, type(self).__name__)
        check_callbacks(trainer, type(self).__name__)
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
        """Look at the model."""
        check_parameters(pl_module, self.takes_shards, type(self).__name__)
        if not self._recognise(pl_module) and (self._model is None or self._model() is not pl_module):
            self.forget()
        self._model = weakref.ref(pl_module)
        self.gauge = None
        self._active = True
        self._find(trainer, lambda: self._source.attach(pl_module))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Listen to the first calls of the model if there is no example input."""
        if self._active and self._source.found is None:
            self._source.listen(pl_module)
        elif type(self).on_train_batch_start is ModelCallback.on_train_batch_start:
            silence(self, {*self.idle_hooks, "on_train_batch_start"})  # until the next setup

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let go of model and optimizers."""
        self._release()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of model and optimizers."""
        if stage != "fit" and self._saved_parameters is not None:
            # Testing a checkpoint loads our state too: it belongs to this model, whichever the next fit trains.
            self._model, self._saved_parameters = weakref.ref(pl_module), None
        self._release()

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, names and tensors, so that a checkpoint loads with ``weights_only=True``."""
        model = self._model() if self._model is not None else None
        parameters = parameter_shapes(model, self.module) if model is not None else self._saved_parameters
        return {
            "version": _VERSION,
            "seconds": self.seconds,
            "discovery_seconds": self.discovery_seconds,
            "parameters": parameters,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state.

        Raises:
            CheckpointError: if another version wrote it.
        """
        if state_dict.get("version") != _VERSION:
            raise CheckpointError(
                f"Expected state of version {_VERSION} for {type(self).__name__}, got {state_dict.get('version')}. "
                "Resume with the version of gaugefix that wrote the checkpoint."
            )
        self.forget()
        self.seconds = float(state_dict["seconds"])
        self.discovery_seconds = float(state_dict["discovery_seconds"])
        self._saved_parameters = state_dict["parameters"]

    # ---- inside -----------------------------------------------------------------------------------------------------
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

    def _recognise(self, pl_module: LightningModule) -> bool:
        """Check the state of a checkpoint that was loaded since the last call; return whether there was one."""
        saved, self._saved_parameters = self._saved_parameters, None
        if saved is not None:
            check_checkpoint(saved, parameter_shapes(pl_module, self.module), type(self).__name__)
        return saved is not None

    def _collect(self, pl_module: LightningModule, stepped: bool) -> None:
        """Find the gauge group from the calls that were recorded, if it is not known yet."""
        if self._source.found is None:
            self._find(pl_module.trainer, lambda: self._source.collect(pl_module, stepped))

    def _find(self, trainer: Trainer, look: Callable[[], None]) -> None:
        """Look for the gauge group, and make sure that all processes find the same."""
        failure = None
        with self._discovery(), training_dtype(trainer):
            try:
                look()
            except Exception as error:  # no process may miss the check
                failure = error
        check_agreement(trainer, self._source.found, failure, type(self).__name__)

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
        self._source.detach()
