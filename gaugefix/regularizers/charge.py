"""The charge penalty ‖μ‖²: minimal norm without shrinking anything."""

from __future__ import annotations

from torch import Tensor

from gaugefix.regularizers.base import register_term, total
from gaugefix.regularizers.moments import Moments
from gaugefix.regularizers.of_moments import MomentTerm


@register_term("charge")
class Charge(MomentTerm):
    """R = Σ_i (in_i − out_i)² + Σ_blocks ‖A − B‖_F²: the squared Noether charge."""

    condition = "μ = 0: in_i = out_i for every unit, A = B for every block (minimal norm, Landau gauge)"
    freedom = "rotations that keep A = B, phases of rotary planes, shifts and kernels"
    changes_function = "no: the gradient is an infinitesimal gauge transformation everywhere"
    cost = "two passes over the parameters"
    source = "the moment map of Kempf and Ness; arXiv 2402.02362, Section 6"

    def of(self, moments: Moments) -> Tensor:
        parts = [(moments.ins - moments.outs).square().sum()]
        return total(parts + [(a - b).square().sum() for a, b in moments.blocks])

    def slopes(self, moments: Moments) -> Moments:
        units = 2.0 * (moments.ins - moments.outs)
        blocks = [2.0 * (a - b) for a, b in moments.blocks]
        return Moments(units, -units, tuple((s, -s) for s in blocks))
