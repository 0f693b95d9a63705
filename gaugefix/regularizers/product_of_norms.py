"""The product of the norms on both sides of each unit: a control that no scaling changes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gaugefix.errors import SettingError
from gaugefix.regularizers.base import GaugeTerm, register_term, total
from gaugefix.regularizers.moments import moment_map
from gaugefix.sharding import Place, Shards, rows_of
from gaugefix.slices.layout import weight_of
from gaugefix.slices.minimal_norm import joint_for
from gaugefix.slices.term import Term, values
from gaugefix.symmetry import GaugeGroup


@register_term("product_of_norms")
class ProductOfNorms(GaugeTerm):
    """R = min over scalings g of ½ ‖g·θ‖²: what L2 would be on the slice, wherever the parameters are.

    For one hidden layer it is Σ_i √(in_i · out_i), the product of the norms; deeper layers share their weights. By the
    envelope theorem its gradient is that of ½‖g*·θ‖² at fixed g*.
    """

    condition = "none: it is the same everywhere on an orbit of the scalings (control)"
    freedom = "all scalings; blocks of GL are not minimised over (see nuclear_norm)"
    changes_function = "yes, and only that"
    invariant = True
    takes_shards = True
    cost = "one solution of the balance problem, and two passes"
    source = "Neyshabur, Tomioka and Srebro, arXiv 1412.6614, for one hidden layer; envelope: ours"

    def value(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> Tensor:
        factors = _factors(gauge, tensors)
        terms = moment_map(gauge).balance.terms
        parts = [0.5 * (values(term, tensors).square() * _factor(term, factors)).sum() for term in terms]
        return total(parts)

    @torch.no_grad()
    def measure(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> float:
        if not isinstance(tensors, Shards):
            return super().measure(gauge, tensors)
        factors, here = _factors(gauge, tensors), rows_of(tensors)
        terms = moment_map(gauge).balance.terms
        parts = {t.parameter: (values(t, here).square() * _factor_here(t, factors, tensors)).sum() for t in terms}
        return 0.5 * float(tensors.total(parts))

    @torch.no_grad()
    def add_gradient_(
        self, gauge: GaugeGroup, tensors: Mapping[str, Tensor], gradients: Mapping[str, Tensor], strength: float
    ) -> None:
        factors, here = _factors(gauge, tensors), rows_of(tensors)
        for term in moment_map(gauge).balance.terms:
            gradient = gradients.get(term.parameter)
            if gradient is not None:
                tensor = values(term, here)
                pulled = tensor * _factor_here(term, factors, tensors).to(tensor.dtype)
                gradient.add_(pulled.to(gradient.dtype), alpha=strength)

    def check(self, gauge: GaugeGroup) -> None:
        if not moment_map(gauge).balance.size:
            raise SettingError(
                "Expected units that scale for the term 'product_of_norms', got a gauge group without them. For "
                "blocks use nuclear_norm."
            )


def _factors(gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """λ² of the scaling onto the slice, by power."""
    given = tensors if isinstance(tensors, Shards) else {n: t.detach() for n, t in tensors.items()}
    grown = (2.0 * joint_for(gauge, given).balance.solve(given, tolerance=1e-6)).exp()
    return {1: grown, -1: grown.reciprocal()}


def _factor(term: Term, factors: dict[int, Tensor], place: Place | None = None) -> Tensor:
    total: Tensor | None = None
    for side in term.sides:
        weight = weight_of(side, factors)
        weight = weight if place is None else place.cut(weight)
        total = weight if total is None else total * weight
    assert total is not None
    return total


def _factor_here(term: Term, factors: dict[int, Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    """λ² over the entries of a parameter that this process holds."""
    if not isinstance(tensors, Shards):
        return _factor(term, factors)
    return _factor(term, factors, tensors.places[term.parameter]).to(tensors.local[term.parameter].device)
