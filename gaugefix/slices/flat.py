"""Flat (Fisher-balanced) gauge: the point of the orbit where Σ E‖gradient‖² is smallest.

A gradient moves by g⁻ᵀ, so that what holds for weights and minimal norm holds for gradients with vectors and covectors
exchanged (docs/concepts/slices.md): F_in,i = F_out,i for every scaled unit, F the mean squared gradients of its
incoming and outgoing weights; a unit alone has λ_i = (F_in,i/F_out,i)^{1/4}. E[G Gᵀ] is the same over vectors and
covectors for a GL block. The trace of the Fisher information, to which E‖gradient‖² comes close, is least along the
orbit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from gaugefix.errors import SliceError
from gaugefix.groups import DiagonalGroup
from gaugefix.slices.base import Slice, register_slice, require_finite
from gaugefix.slices.flat_problem import problem_of
from gaugefix.slices.gradient_moments import GradientMoments
from gaugefix.symmetry import Element, GaugeGroup

CLIP = 0.1
"""Default largest |log λ| of one projection during training.

It hardly matters where gradients are as plentiful as in the measurement at ``gradient_moments.DECAY`` (there, with
decay 0.99: 1.0e-2 with 0.03, 7.3e-3 with 0.1, 5.0e-3 with 0.3, 5.9e-3 unclipped). It bounds what odd gradients can do.
"""


@register_slice("flat")
class Flat(Slice):
    """The Fisher-balanced slice: least mean squared gradient along the orbit.

    Scalings and rotary planes are balanced together, a GL block in closed form; they alternate where they couple, which
    is exact up to the angles between rows that no statistics keep (:mod:`gaugefix.slices.moment_transport`). Shifts,
    kernels and rotations stay where they are, and so do units and blocks without gradients on one side: dead ones, and
    those beside parameters that are not trained.

    The mean is not a function of the parameters: it has to be observed. :class:`gaugefix.GaugeProjection` does so.

    Args:
        moments: averages of squared gradients, in the gauge of the parameters.
        tolerance: largest |log λ| that is left.
        rounds: limit of alternations.

    Raises:
        SliceError: from :meth:`solve`, if there are no moments, or if nothing was observed yet.
    """

    def __init__(self, moments: GradientMoments | None = None, tolerance: float = 1e-4, rounds: int = 50) -> None:
        self.moments = moments
        self.tolerance = tolerance
        self.rounds = rounds

    @torch.no_grad()
    def solve(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> Element:
        floating = [tensors[name] for name in gauge.shapes if tensors[name].is_floating_point()]
        if not math.isfinite(sum(float(size) for size in torch._foreach_norm(floating))):
            require_finite({name: tensors[name] for name in gauge.shapes})
        return problem_of(gauge).solve(self._known(), tensors, self.tolerance, self.rounds)

    @torch.no_grad()
    def residual(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the imbalance of the moments of gradients, ‖F_in − F_out‖ over units and blocks relative to ΣF."""
        return problem_of(gauge).residual(self._known(), tensors)

    def _known(self) -> GradientMoments:
        if self.moments is None:
            raise SliceError(
                "Expected statistics of gradients for slice 'flat', got none: parameters alone do not tell where it "
                "is. Train with GaugeProjection('flat'), which collects them, or give gaugefix.slices.Flat(moments) "
                "with GradientMoments instead of the name; to measure drift, take slice='minimal_norm'."
            )
        if self.moments.names and self.moments.empty:
            raise SliceError(
                "Expected observed gradients for slice 'flat', got none yet. Call moments.observe(gradients) after a "
                "backward pass."
            )
        return self.moments


def clipped(gauge: GaugeGroup, element: Element, most: float = CLIP) -> Element:
    """Return the element with |log| of every scale, and of every singular value of a block, at most ``most``."""
    low, high = math.exp(-most), math.exp(most)
    steps = []
    for name, value in element.steps:
        if isinstance(gauge[name].group, DiagonalGroup):
            steps.append((name, value.clamp(low, high)))
        else:
            u, s, vh = torch.linalg.svd(value)
            steps.append((name, (u * s.clamp(low, high)[:, None, :]) @ vh))
    return Element(tuple(steps))
