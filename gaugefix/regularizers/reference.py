"""Distance to a reference: background-field gauge."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gaugefix.errors import SettingError
from gaugefix.regularizers.base import GaugeTerm, register_term, total
from gaugefix.slices.least_norm import is_statistic
from gaugefix.symmetry import GaugeGroup


@register_term("reference")
class Reference(GaugeTerm):
    """R = ½ Σ ‖P − P₀‖² over the parameters that the group moves.

    Its stationarity along the orbit is the condition of the slice of the same name: no element of the group brings θ
    nearer to θ₀. Around θ₀ = 0 it is L2.

    Args:
        start: θ₀ by name. Without it the first parameters that the term sees, as the callback does at the start of a
            fit.
    """

    condition = "the point of the orbit nearest to θ₀ (background-field gauge)"
    freedom = "what leaves θ₀ as it is"
    changes_function = "yes: it holds the function near that of the reference"
    cost = "one pass over the parameters, and a copy of them"
    source = "background-field gauge; as a penalty: L2-SP of Li et al., arXiv 1802.01483"

    def __init__(self, start: Mapping[str, Tensor] | None = None) -> None:
        self.start = dict(start) if start is not None else None

    def value(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> Tensor:
        start = self.around(gauge, tensors)
        parts = [0.5 * (tensors[name] - value).square().sum() for name, value in start.items()]
        return total(parts)

    @torch.no_grad()
    def add_gradient_(
        self, gauge: GaugeGroup, tensors: Mapping[str, Tensor], gradients: Mapping[str, Tensor], strength: float
    ) -> None:
        start = self.around(gauge, tensors)
        names = [name for name in gradients if name in start]
        if names:
            apart = torch._foreach_sub([tensors[name] for name in names], [start[name] for name in names])
            torch._foreach_add_([gradients[name] for name in names], apart, alpha=strength)

    def around(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return θ₀ on the device of the parameters; the parameters as they are if there was none.

        Raises:
            SettingError: if θ₀ belongs to another model.
        """
        if self.start is None:
            names = dict.fromkeys(name for s in gauge.applied for name in s.parameters if not is_statistic(name))
            self.start = {name: tensors[name].detach().clone() for name in names}
        for name, value in self.start.items():
            tensor = tensors.get(name)
            if tensor is None or tensor.shape != value.shape:
                shape = "none" if tensor is None else tuple(tensor.shape)
                raise SettingError(
                    f"Expected a reference for '{name}' of shape {shape}, got {tuple(value.shape)}. It belongs to "
                    "another model: leave the reference out, and the start of the fit is taken."
                )
            if value.device != tensor.device:
                self.start[name] = value.to(tensor.device)
        return self.start
