"""NoetherCharges: log the charges that gradient flow conserves, beside what weight decay should make of them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gaugefix.callbacks.decay_clock import DecayClock
from gaugefix.callbacks.gauge_callback import GaugeCallback
from gaugefix.callbacks.gauge_projection import GaugeProjection
from gaugefix.callbacks.gauge_regularizer import GaugeRegularizer
from gaugefix.callbacks.gauge_source import Analysed
from gaugefix.callbacks.lightning_callback import LightningModule, Trainer, callbacks_of
from gaugefix.errors import NoEffectWarning
from gaugefix.functional import charge_norm, noether_charge
from gaugefix.functional.charge_decay import charge_decay
from gaugefix.regularizers.sharded_charges import charges_of_shards
from gaugefix.sharding import Shards, reshard_, shards_of


class NoetherCharges(GaugeCallback):
    """Log the Noether charges every ``every_n_steps`` optimizer steps, and their predicted decay; nothing is changed.

    Gradient flow conserves the charge of every continuous symmetry, such as q_i = ‖in_i‖² − ‖out_i‖² of a ReLU unit,
    and weight decay contracts it to q(0)·e^(−2·wd·t) (:func:`gaugefix.functional.noether_charge`; Kunin et al.,
    arXiv 2012.04728). What differs from that is the work of finite steps, O(lr²) each. What every logger receives, at
    ``trainer.global_step``:

    - ``gauge/charge``: ‖q‖, over all symmetries;
    - ``gauge/charge_predicted``: ‖q‖ at the start, contracted by e^(−2·wd·t), t the sum of the learning rates so far,
      or of lr/(1−m) with momentum m (to the step: :class:`gaugefix.callbacks.decay_clock.DecayClock`);
    - ``gauge/<symmetry>/charge`` and ``gauge/<symmetry>/charge_predicted``: the same per symmetry.

    A projection changes the charges: the prediction starts again at the first measurement behind it. There is no law,
    and so no prediction, where a charge's legs are frozen or have different weight decays, with optimizers other than
    torch.optim.SGD (Adam scales each entry apart and conserves no charge, whatever its decay), and beside a
    GaugeRegularizer that depends on the gauge; a warning says so once. Gradient clipping by value breaks the law too;
    by norm it does not.

    Args:
        every_n_steps: Optimizer steps between two measurements.
        module: Name of the submodule to analyse, such as 'encoder.backbone'; by default the LightningModule.
        name: Tells several measurements of one Trainer apart: they log 'gauge/<name>/charge' and so on.
        per_symmetry: Whether to log every symmetry apart.

    Attributes:
        gauge: The gauge group; None until it is known.
        last: The last ‖q‖; None before the first.
        predicted: What it should have been; None without a law.
        lawless: Symmetry → the reason why there is no law for its charge.
        seconds: Time spent on measurements.
        discovery_seconds: Time spent finding the gauge group.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[NoetherCharges(every_n_steps=50)], accelerator="cpu", logger=False,
        ...     enable_checkpointing=False)
    """

    def __init__(
        self,
        every_n_steps: int = 50,
        module: str | None = None,
        name: str | None = None,
        per_symmetry: bool = True,
    ) -> None:
        super().__init__(every_n_steps, module, name, inputs_needed=False)
        self.per_symmetry = per_symmetry
        self._clock = DecayClock()
        self.forget()

    def forget(self) -> None:
        super().forget()
        self.last: float | None = None
        self.predicted: float | None = None
        self.lawless: dict[str, str] = {}
        self._initial: dict[str, float] = {}
        self._projections = 0
        self._warned = False
        self._clock.forget()

    @property
    def takes_shards(self) -> bool:
        return True

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        self._clock.attach(trainer.optimizers)

    @torch.no_grad()
    def act(self, trainer: Trainer, pl_module: LightningModule, analysed: Analysed) -> None:
        """Measure and log."""
        reshard_(pl_module)
        charges = _charges(analysed)
        norms = {name: charge_norm({name: charge}) for name, charge in charges.items()}
        projections = sum(c.projections for c in callbacks_of(trainer, GaugeProjection))
        if not self._initial or projections != self._projections:
            self._initial, self._projections = norms, projections
            self._clock.reset()
        decay = charge_decay(analysed.module, analysed.gauge, self._clock.exponents(), norms)
        self.lawless = dict(decay.lawless) if decay.lawless else self._other_forces(trainer, norms)
        factors = {name: f for name, f in decay.factors.items() if name not in self.lawless}
        predicted = {name: self._initial[name] * factor for name, factor in factors.items()}
        self.last = math.hypot(*norms.values())
        self.predicted = None if self.lawless else math.hypot(*predicted.values())
        self._warn_of_the_lawless(trainer)
        prefix = f"gauge/{self.name}" if self.name else "gauge"
        headline = {f"{prefix}/charge": self.last}
        if self.predicted is not None:
            headline[f"{prefix}/charge_predicted"] = self.predicted
        metrics = dict(headline)
        if self.per_symmetry:
            metrics |= {f"{prefix}/{name}/charge": norm for name, norm in norms.items()}
            metrics |= {f"{prefix}/{name}/charge_predicted": norm for name, norm in predicted.items()}
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in headline.items()})
        trainer.progress_bar_metrics.update(headline)

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "start": dict(self._initial),
            "projections": self._projections,
            "clock": self._clock.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._initial = dict(state_dict["start"])
        self._projections = int(state_dict["projections"])
        self._clock.load_state_dict(state_dict["clock"])

    # ---- inside -----------------------------------------------------------------------------------------------------
    def _other_forces(self, trainer: Trainer, names: dict[str, float]) -> dict[str, str]:
        """Regularizers whose gradient is not horizontal move all charges."""
        for regularizer in callbacks_of(trainer, GaugeRegularizer):
            if regularizer.strength and not regularizer.gauge_term.invariant:
                reason = f"the GaugeRegularizer '{regularizer.term}' pushes along the orbit"
                return dict.fromkeys(names, reason)
        return {}

    def _warn_of_the_lawless(self, trainer: Trainer) -> None:
        if self._warned or not self.lawless:
            return
        self._warned = True
        name, reason = next(iter(self.lawless.items()))
        more = f" (and {len(self.lawless) - 1} more)" if len(self.lawless) > 1 else ""
        self.warn(
            trainer,
            f"NoetherCharges logs charges without gauge/charge_predicted: no law for the charge of '{name}'{more}, for "
            f"{reason}. A prediction needs torch.optim.SGD with one learning rate and weight decay on all parameters.",
            NoEffectWarning,
        )

    def _release(self) -> None:
        self._clock.detach()
        super()._release()


def _charges(analysed: Analysed) -> dict[str, Tensor]:
    tensors = shards_of(analysed.gauge.check(analysed.module))
    if isinstance(tensors, Shards):
        return charges_of_shards(analysed.gauge, tensors)
    return noether_charge(analysed.module, analysed.gauge)
