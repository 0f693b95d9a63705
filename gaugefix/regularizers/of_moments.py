"""MomentTerm: terms that depend on the parameters through the moments of the gauge group alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from gaugefix.errors import SettingError
from gaugefix.regularizers.base import GaugeTerm
from gaugefix.regularizers.moments import Moments, moment_map
from gaugefix.regularizers.sharded_moments import moment_map_for
from gaugefix.symmetry import GaugeGroup


class MomentTerm(GaugeTerm):
    """R = φ(in, out, A, B), with φ' in closed form: one pass over the parameters, and one to add the gradient."""

    takes_shards = True

    @abstractmethod
    def of(self, moments: Moments) -> Tensor:
        """Return φ, of shape (), differentiable by the moments."""

    @abstractmethod
    def slopes(self, moments: Moments) -> Moments:
        """Return φ' in closed form."""

    def value(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> Tensor:
        return self.of(moment_map(gauge).differentiable(tensors))

    @torch.no_grad()
    def measure(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> float:
        return float(self.of(moment_map_for(gauge, tensors).here(tensors)))

    def add_gradient_(
        self, gauge: GaugeGroup, tensors: Mapping[str, Tensor], gradients: Mapping[str, Tensor], strength: float
    ) -> None:
        source = moment_map_for(gauge, tensors)
        source.pull_back_(self.slopes(source.here(tensors)), tensors, gradients, strength)

    def check(self, gauge: GaugeGroup) -> None:
        source = moment_map(gauge)
        if not source.balance.size and not source.blocks:
            raise SettingError(
                f"Expected units that scale or blocks that mix for the term '{self.name}', got a gauge group without "
                "them. Use l2, or leave the term out."
            )
