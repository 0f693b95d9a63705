"""GaugeRegularizer: gauge fixing by a term of the loss."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal, get_args

from torch import Tensor
from torch.optim import Optimizer

from gaugefix.callbacks.gauge_callback import check_interval
from gaugefix.callbacks.gauge_source import Analysed
from gaugefix.callbacks.lightning_callback import LightningModule, Trainer
from gaugefix.callbacks.loss_scale import loss_scale
from gaugefix.callbacks.model_callback import ModelCallback
from gaugefix.callbacks.schedule import StepCounter
from gaugefix.errors import NoEffectWarning, SettingError, did_you_mean
from gaugefix.regularizers import get_term
from gaugefix.regularizers.base import require_shards
from gaugefix.regularizers.gradients import gradients_of, gradients_of_rows
from gaugefix.regularizers.reference import Reference
from gaugefix.sharding import Shards, is_sharded, reshard_, shards_of
from gaugefix.symmetry import named_tensors

Schedule = Literal["constant", "linear", "cosine", "warmup"]
_SHARDING = "ModelParallelStrategy"


class GaugeRegularizer(ModelCallback):
    """Add the gradient of a gauge-fixing term to the gradients of every optimizer step.

    What is added is exactly strength · ∂term/∂θ, once per step: behind the unscaling of mixed precision and the
    averaging over accumulated batches and processes, before clipping. The loss that is logged stays that of the data;
    the term itself is logged as ``gauge/<term>/value``. Adaptive optimizers scale the term with the rest of the
    gradient, as they do with L2 (and not with AdamW's weight decay). Callbacks that log gradient norms see the term if
    they come behind this one in the list. In manual optimization it works with the optimizers of
    ``self.optimizers()``; a clipping of your own, before ``step()``, does not see it.

    On parameters that ``fully_shard`` has sharded (ModelParallelStrategy), every process adds the gradient of its rows:
    what a term needs of the others is one all-reduce of sums per unit, and where blocks of GL mix rows, their
    parameters are gathered one at a time. 'path_norm' and 'reference' are refused there.

    Several of them may be combined, with a GaugeProjection too.

    Args:
        term: What to add: 'l2', 'charge', 'balance', 'unit_norm', 'orthogonality', 'reference', 'depth_smoothness', or
            a control that no gauge transformation changes: 'path_norm', 'product_of_norms', 'nuclear_norm'.
        strength: Factor of the term; for 'l2' it is the weight decay of torch's SGD.
        schedule: How the strength goes: 'constant'; 'linear' or 'cosine' down to zero at the end of the fit; 'warmup'
            up from zero over its first tenth.
        every_n_steps: Optimizer steps between two additions, each of which then counts every_n_steps times; with 1
            every step is exactly that of the sum of loss and term.
        module: Name of the submodule to regularize, such as 'encoder.backbone'; by default the LightningModule.
        name: Tells several regularizers with the same term apart: they log 'gauge/<name>/<term>/value'.

    Attributes:
        gauge: The gauge group; None until it is known.
        gauge_term: The term itself, a gaugefix.regularizers.GaugeTerm.
        value: The term when it was last logged; None before.
        seconds: Time spent on the term.
        discovery_seconds: Time spent finding the gauge group.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[GaugeRegularizer("charge", strength=0.1)], accelerator="cpu", logger=False,
        ...     enable_checkpointing=False)
    """

    def __init__(
        self,
        term: str = "charge",
        strength: float = 0.01,
        schedule: Literal["constant", "linear", "cosine", "warmup"] = "constant",
        every_n_steps: int = 1,
        module: str | None = None,
        name: str | None = None,
    ) -> None:
        if schedule not in get_args(Schedule):
            raise SettingError(
                f"Expected a schedule, got {schedule!r}. {did_you_mean(str(schedule), get_args(Schedule))}"
            )
        _check_strength(strength)
        check_interval(every_n_steps)
        self.gauge_term = get_term(term)
        super().__init__(module, name, inputs_needed=False)
        self.term = term
        self.strength = float(strength)
        self.schedule = schedule
        self.every_n_steps = every_n_steps
        self._counter = StepCounter(1)
        self._steps = math.inf
        self._parameters: dict[int, dict[str, Tensor]] = {}
        self._tensors: dict[str, Tensor] = {}
        self._shards: Shards | None = None
        self._heard = False
        self.forget()

    def forget(self) -> None:
        super().forget()
        self.value: float | None = None
        self._calls: dict[int, int] = {}
        self._counter.restore(0)
        self.gauge_term = get_term(self.term)

    @property
    def takes_shards(self) -> bool:
        return self.gauge_term.takes_shards

    # ---- Lightning's hooks ------------------------------------------------------------------------------------------
    @cached_property
    def state_key(self) -> str:
        return self._generate_state_key(term=self.term, module=self.module, name=self.name)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and any(base.__name__ == _SHARDING for base in type(trainer.strategy).__mro__):
            require_shards(self.gauge_term)
        super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if is_sharded(pl_module):
            require_shards(self.gauge_term)
        for optimizer in trainer.optimizers:
            if any(base.__name__ == "LBFGS" for base in type(optimizer).__mro__):
                raise SettingError(
                    f"Expected an optimizer that takes one gradient a step, got {type(optimizer).__name__}: its line "
                    "search would compare losses without the term. Add the term to the loss in training_step: "
                    f"gaugefix.regularizers.get_term('{self.term}').value(gauge, parameters)."
                )
        super().on_fit_start(trainer, pl_module)
        shards_of(named_tensors(pl_module))  # raises for more than one mesh
        self._parameters, self._tensors, self._shards, self._heard = {}, {}, None, False
        self._counter.attach(trainer.optimizers)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out how long the fit is, where the schedule asks.

        Some strategies restore the state of callbacks only now, after ``on_fit_start``.
        """
        self._recognise(pl_module)
        if self.schedule == "constant":
            return
        self._steps = float(trainer.estimated_stepping_batches)
        if not 0.0 < self._steps < math.inf:
            raise SettingError(
                f"Expected a fit with an end for schedule='{self.schedule}', got max_epochs=-1 and max_steps=-1. Give "
                "one of them, or schedule='constant'."
            )

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Add the gradient of the term to those of this optimizer's parameters."""
        self._heard = True
        if not self._active:
            return
        self._collect(pl_module, stepped=False)
        found = self._source.found
        if found is None or not self._ready(trainer):
            return
        if id(optimizer) not in self._parameters:
            reshard_(pl_module)
            with self._discovery():
                self._parameters[id(optimizer)] = self._owned(found, optimizer)
        begun = time.perf_counter()
        parameters = self._parameters[id(optimizer)]
        if any(p.grad is not None for p in parameters.values()):
            key = trainer.optimizers.index(optimizer) if optimizer in trainer.optimizers else 0
            calls = self._calls[key] = self._calls.get(key, -1) + 1
            if calls % self.every_n_steps == 0:
                strength = self.every_n_steps * self.strength_at(calls, self._steps)
                strength *= float(loss_scale(trainer, optimizer))
                gradients = gradients_of(parameters) if self._shards is None else gradients_of_rows(parameters)
                self.gauge_term.add_gradient_(found.gauge, self._now(), gradients, strength)
        self.seconds += time.perf_counter() - begun

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the term as often as the Trainer logs."""
        stepped, _ = self._counter.advance()
        if not stepped or not self._active:
            return
        if not self._heard:
            self._heard = True
            self.warn(
                trainer,
                f"{type(self).__name__} adds nothing: Lightning did not see the optimizer's step. In manual "
                "optimization step the optimizers of self.optimizers(), not torch's own.",
                NoEffectWarning,
            )
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if self._tensors and every and self._counter.steps % every == 0:
            begun = time.perf_counter()
            assert self.gauge is not None
            self.value = self.gauge_term.measure(self.gauge, self._now())
            self.seconds += time.perf_counter() - begun
            prefix = f"gauge/{self.name}" if self.name else "gauge"
            for logger in trainer.loggers:
                logger.log_metrics({f"{prefix}/{self.term}/value": self.value}, step=trainer.global_step)

    def strength_at(self, step: int, steps: float) -> float:
        """Return the strength at ``step`` of a fit of ``steps`` steps."""
        if self.schedule == "constant":
            return self.strength
        part = min(step / steps, 1.0)
        if self.schedule == "warmup":
            return self.strength * min(10.0 * part, 1.0)
        left = 1.0 - part if self.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * part))
        return self.strength * left

    def state_dict(self) -> dict[str, Any]:
        start = self.gauge_term.start if isinstance(self.gauge_term, Reference) else None
        return {
            **super().state_dict(),
            "steps": self._counter.steps,
            "calls": dict(self._calls),
            "reference": None if start is None else {name: value.clone() for name, value in start.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._counter.restore(int(state_dict["steps"]))
        self._calls = {int(key): int(calls) for key, calls in state_dict["calls"].items()}
        if isinstance(self.gauge_term, Reference) and state_dict["reference"] is not None:
            self.gauge_term = Reference(state_dict["reference"])

    # ---- inside -----------------------------------------------------------------------------------------------------
    def _owned(self, found: Analysed, optimizer: Optimizer) -> dict[str, Tensor]:
        """The parameters of this optimizer that train, by name, tied ones once."""
        if not self._tensors:
            self.gauge_term.check(found.gauge)
            self._tensors = named_tensors(found.module)
            shards = shards_of(self._tensors)
            self._shards = shards if isinstance(shards, Shards) else None
        owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
        seen: set[int] = set()
        mine: dict[str, Tensor] = {}
        for name, tensor in self._tensors.items():
            if id(tensor) in owned and id(tensor) not in seen and tensor.requires_grad:
                seen.add(id(tensor))
                mine[name] = tensor
        return mine

    def _now(self) -> Mapping[str, Tensor]:
        """The tensors as a term reads them; what was gathered of shards at an earlier step no longer holds."""
        return self._tensors if self._shards is None else self._shards.renewed(self._tensors)

    def _release(self) -> None:
        self._counter.detach()
        self._parameters, self._tensors, self._shards = {}, {}, None
        super()._release()


def _check_strength(strength: object) -> None:
    if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not 0.0 <= strength < math.inf:
        raise SettingError(f"Expected a strength of 0 or more, got {strength!r}. It multiplies the term.")
