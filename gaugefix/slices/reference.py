"""Reference (background-field) gauge: the point of the orbit nearest to a reference copy."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gaugefix.errors import ConvergenceWarning, SliceError
from gaugefix.slices.alignment import Alignment
from gaugefix.slices.base import Slice, register_slice, require_finite
from gaugefix.slices.spectral import Spectral
from gaugefix.slices.trail import acted
from gaugefix.symmetry import Element, GaugeGroup, named_tensors

if TYPE_CHECKING:
    from torch import nn


@register_slice("reference")
class Reference(Slice):
    """Minimise ‖gθ − θ₀‖² over the orbit, θ₀ an initial point, a checkpoint or an average.

    Scalings and planes are problems in one variable per unit, mixings take Gauss–Newton steps, rotations and
    permutations are Procrustes and assignment problems, shifts and kernels least squares; sweeps over all of them never
    increase the distance. They start from where the parameters are, or from where the canonical forms of both lead, if
    that is nearer. The problem is not convex: the result is a local minimum, and the reference itself if it lies on the
    orbit and its canonical form is unique. Averages of models that were brought to one reference make sense
    (docs/concepts/slices.md; for permutations Ainsworth et al., *Git Re-Basin*, arXiv 2209.04836).

    Args:
        reference: a module, or parameters by name, as of a ``state_dict``; copied.
        tolerance: relative decrease of the distance at which the sweeps stop.
        rounds: limit of sweeps.

    Raises:
        SliceError: from :meth:`solve`, if there is no reference, or if it lacks a parameter or has another shape.

    Example:
        >>> import copy, torch, gaugefix
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> gauge = gaugefix.discover(net, (torch.randn(3, 4),))
        >>> start = copy.deepcopy(net.state_dict())
        >>> gaugefix.act_(net, gauge, gauge.random(scale=0.3, discrete=True))
        >>> element = gaugefix.project_(net, gauge, Reference(start))
        >>> all(torch.allclose(p, start[name], atol=1e-5) for name, p in net.named_parameters())
        True
    """

    def __init__(
        self, reference: nn.Module | Mapping[str, Tensor] | None = None, tolerance: float = 1e-6, rounds: int = 100
    ) -> None:
        given = named_tensors(reference) if isinstance(reference, torch.nn.Module) else reference
        self.reference = None if given is None else {name: t.detach().clone() for name, t in given.items()}
        self.tolerance = tolerance
        self.rounds = rounds

    @torch.no_grad()
    def solve(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> Element:
        goal = self._goal(gauge, tensors)
        first, alignment = Element(()), Alignment(gauge, tensors, goal)
        detour = self._through_canonical_forms(gauge, tensors, goal)
        moved = Alignment(gauge, acted(gauge, tensors, detour), goal)
        if moved.square < alignment.square:
            first, alignment = detour, moved
        if not alignment.run(self.tolerance, self.rounds):
            warnings.warn(
                f"Expected the point nearest to the reference within {self.rounds} sweeps, still approaching. The "
                "element leads closer to it, not onto it: raise Reference(rounds=...).",
                ConvergenceWarning,
                stacklevel=2,
            )
        return first.then(alignment.element())

    @torch.no_grad()
    def residual(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return by how much one more sweep lessens the distance, relative to ‖θ‖: 0 at a local minimum."""
        alignment = Alignment(gauge, tensors, self._goal(gauge, tensors))
        wide = [tensors[name].detach().double() for name in alignment.names]
        before = sum(float((t - alignment.goal[n]).square().sum()) for n, t in zip(alignment.names, wide, strict=True))
        alignment.run(0.0, 1)
        size = sum(float(t.square().sum()) for t in wide)
        fall = max(before**0.5 - alignment.square**0.5, 0.0)
        return torch.tensor(fall / size**0.5 if size else 0.0, dtype=torch.float64)

    def _through_canonical_forms(
        self, gauge: GaugeGroup, tensors: Mapping[str, Tensor], goal: Mapping[str, Tensor]
    ) -> Element:
        """To the canonical form, and back from that of the reference: it leads there if both lie on one orbit."""
        form = Spectral(tolerance=1e-10)
        return form.solve(gauge, tensors).then(gauge.inverse(form.solve(gauge, goal)))

    def _goal(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.reference is None:
            raise SliceError(
                "Expected a reference point for slice 'reference', got none. Give Reference(model) or "
                "Reference(state_dict) instead of the name."
            )
        for name, shape in gauge.shapes.items():
            found = self.reference.get(name)
            if found is None or tuple(found.shape) != tuple(shape):
                raise SliceError(
                    f"Expected shape {tuple(shape)} for '{name}' of the reference, got "
                    f"{'none' if found is None else tuple(found.shape)}. Give a copy of the same architecture."
                )
        goal = {name: self.reference[name].to(tensors[name].device).double() for name in gauge.shapes}
        require_finite(goal)
        return goal
