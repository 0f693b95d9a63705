"""L2: weight decay, read as a gauge condition."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gaugefix.regularizers.base import GaugeTerm, register_term, total
from gaugefix.sharding import Shards, rows_of
from gaugefix.symmetry import GaugeGroup


@register_term("l2")
class L2(GaugeTerm):
    """R = ½ ‖θ‖² over everything that trains, so that ``strength`` is the ``weight_decay`` of torch's SGD.

    Its stationarity along the orbit is exactly μ = 0. It also shrinks what cannot be moved along the orbit.
    """

    condition = "minimal norm, shifts and kernels included (Landau gauge)"
    freedom = "rotations that keep the norm, phases of rotary planes"
    changes_function = "yes: it shrinks the function"
    takes_shards = True
    cost = "one pass over the parameters"
    source = "weight decay; as a gauge condition: arXiv 2402.02362, Section 6"

    def value(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return R over the tensors that require a gradient, tied ones once."""
        own = {id(t): t for t in tensors.values() if t.requires_grad}.values()
        parts = [0.5 * t.square().sum() for t in own]
        return total(parts)

    @torch.no_grad()
    def measure(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> float:
        if not isinstance(tensors, Shards):
            return super().measure(gauge, tensors)
        return 0.5 * float(tensors.total({name: tensors.local[name].square().sum() for name in tensors.trained}))

    @torch.no_grad()
    def add_gradient_(
        self, gauge: GaugeGroup, tensors: Mapping[str, Tensor], gradients: Mapping[str, Tensor], strength: float
    ) -> None:
        here = rows_of(tensors)
        torch._foreach_add_(list(gradients.values()), [here[name] for name in gradients], alpha=strength)
