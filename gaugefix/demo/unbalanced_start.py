"""Start from the same function, with parameters far from every slice."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

import gaugefix
from gaugefix.groups import ComplexScaling, GeneralLinear, PositiveScaling, SignedScaling

NONCOMPACT = (PositiveScaling, SignedScaling, ComplexScaling, GeneralLinear)
"""Groups that can make parameters arbitrarily large; rotations and shifts are no imbalance."""


class UnbalancedStart(Callback):
    """Before training, scale the weights into every hidden unit by λ and those out of it by 1/λ, with random λ.

    log λ is normal with standard deviation ``log_std``, one for each unit; where n channels can be mixed by any
    matrix, as those of attention heads and of the states of a neural ODE, they are mixed by exp(log_std · Z / √n) with
    Z standard normal. The network's function stays the same.

    Args:
        log_std: standard deviation of log λ.
        seed: of the random λ.
    """

    def __init__(self, log_std: float = 1.0, seed: int = 0) -> None:
        self.log_std = log_std
        self.seed = seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        gauge = gaugefix.discover(pl_module, (pl_module.example_input_array,))
        scales = gauge.select(lambda symmetry: isinstance(symmetry.group, NONCOMPACT))
        gaugefix.act_(pl_module, scales, scales.random(scale=self.log_std, seed=self.seed))
