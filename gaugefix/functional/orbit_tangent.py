"""The tangent space of an orbit, and the orthogonal projection onto it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping

import torch
from torch import Tensor

from gaugefix.errors import GaugeError, NonFiniteError
from gaugefix.functional.infinitesimal import Infinitesimal, infinitesimal
from gaugefix.groups import ComplexScaling, DiagonalGroup, MatrixGroup, Orthogonal
from gaugefix.slices.second_moment import coordinate_sums, second_moments
from gaugefix.slices.shift_normal import ShiftNormal
from gaugefix.symmetry import GaugeGroup, LinearSymmetry, ShiftSymmetry, Symmetry

Vectors = dict[str, Tensor]
Solve = Callable[[Tensor], Tensor]

_TOLERANCE = 1e-7
_STEPS = 2000
_RANK = 1e-13
"""Relative size below which a generator counts as one that moves nothing."""


class OrbitTangent:
    """All vertical directions V ξ at θ, of all applied symmetries at once.

    The vertical part of a vector Δ is V ξ with the ξ that minimises ‖Δ − V ξ‖. Neighbouring layers share a weight, so
    the Gram matrix VᵀV couples their symmetries; it is singular where symmetries overlap. Conjugate gradients on the
    least-squares problem (CGLS; Björck, *Numerical Methods for Least Squares Problems*, 7.4) need products with V and
    Vᵀ only, and converge for singular Gram matrices too. Each symmetry is preconditioned by its own Gram matrix.

    Args:
        gauge: the group.
        tensors: parameters and buffers θ by name, at least those that the group reads; held as float64 copies.
        counted: names of the parameters that make up the space (buffers move along but are no part of it).
        conditional: whether symmetries that hold only where some parameters are not zero count.

    Raises:
        NonFiniteError: if a tensor is not finite.
    """

    def __init__(
        self, gauge: GaugeGroup, tensors: Mapping[str, Tensor], counted: Collection[str], conditional: bool = False
    ) -> None:
        wide = {name: tensors[name].detach().double() for name in gauge.shapes}
        for name, tensor in wide.items():
            check_finite(name, tensor)
        chosen = [s for s in gauge.applied if s.group.dimension and (conditional or not s.conditional)]
        self.actions = [infinitesimal(s, wide, counted) for s in chosen]
        self.actions = [action for action in self.actions if action.names]
        self.names = tuple(dict.fromkeys(name for action in self.actions for name in action.names))
        self.steps = 0
        self._solves = [preconditioner(action, frozenset(counted)) for action in self.actions]

    @torch.no_grad()
    def vertical(self, vectors: Mapping[str, Tensor]) -> Vectors:
        """Return the vertical part, float64, of all parameters that the group moves.

        Args:
            vectors: by parameter name, each in the shape of the parameter; absent ones are zero.

        Raises:
            NonFiniteError: if an entry is not finite.
            GaugeError: if the iteration does not converge.
        """
        if not self.actions:
            return {}
        shapes = self._shapes()
        rest = {name: torch.zeros_like(point) for name, point in shapes.items()}
        for name in rest.keys() & vectors.keys():
            check_finite(name, vectors[name])
            rest[name] = vectors[name].detach().to(rest[name]).reshape(rest[name].shape).clone()
        given = {name: tensor.clone() for name, tensor in rest.items()}
        size = math.sqrt(squared_norm(rest.values()))
        if size == 0.0:
            return rest
        slope = self._pull(rest)
        step = self._precondition(slope)
        left = best = _dot(slope, step)
        self.steps = 0
        while left > (_TOLERANCE * size) ** 2:
            if self.steps >= _STEPS or not math.isfinite(left):
                raise GaugeError(
                    f"Expected the projection onto the orbit to converge, got {math.sqrt(best) / size:.1e} of the "
                    f"vector left after {self.steps} steps. Balance the parameters with gaugefix.project_ first."
                )
            moved = self._push(step)
            length = left / squared_norm(moved.values())
            for name, tensor in moved.items():
                rest[name].sub_(tensor, alpha=length)
            slope = self._pull(rest)
            better = self._precondition(slope)
            before, left = left, _dot(slope, better)
            best = min(best, left)
            step = [b + (left / before) * s for b, s in zip(better, step, strict=True)]
            self.steps += 1
        return {name: given[name] - tensor for name, tensor in rest.items()}

    def fraction(self, vectors: Mapping[str, Tensor]) -> float:
        """Return ‖vertical part‖²/‖Δ‖²; what is named in ``vectors`` beside the group's parameters counts in ‖Δ‖².

        Raises:
            NonFiniteError: if an entry is not finite.
            GaugeError: if the iteration does not converge.
        """
        for name, vector in vectors.items():
            check_finite(name, vector)
        total = squared_norm(vector.detach().double() for vector in vectors.values())
        return squared_norm(self.vertical(vectors).values()) / total if total else 0.0

    def _shapes(self) -> Vectors:
        return {name: action.tensors[name] for action in self.actions for name in action.names}

    def _push(self, generators: list[Tensor]) -> Vectors:
        total: Vectors = {}
        for action, generator in zip(self.actions, generators, strict=True):
            for name, part in action.push(generator).items():
                total[name] = total[name] + part if name in total else part
        return total

    def _pull(self, vectors: Mapping[str, Tensor]) -> list[Tensor]:
        return [action.pull(vectors) for action in self.actions]

    def _precondition(self, slopes: list[Tensor]) -> list[Tensor]:
        return [solve(slope) for solve, slope in zip(self._solves, slopes, strict=True)]


def preconditioner(action: Infinitesimal, counted: frozenset[str]) -> Solve:
    """Return the (pseudo-)inverse of the Gram matrix of one symmetry, or of a simple model of it."""
    symmetry, group = action.symmetry, action.symmetry.group
    if isinstance(symmetry, LinearSymmetry):
        if isinstance(group, DiagonalGroup):
            return _by_diagonal(action, symmetry)
        if isinstance(group, MatrixGroup):
            return _by_moments(action, symmetry, counted)
    if isinstance(symmetry, ShiftSymmetry):
        normal = ShiftNormal(symmetry, counted)
        if normal.possible:
            normal.prepare({name: action.tensors[name] for name in symmetry.reads})
            return normal.solve
    return _by_one_number(action, symmetry)


def _by_diagonal(action: Infinitesimal, symmetry: LinearSymmetry) -> Solve:
    """Σ_legs k²·Σ P² of every unit."""
    n = symmetry.group.coordinates
    total = action.tensors[symmetry.legs[0].parameter].new_zeros(n)
    for leg in symmetry.legs:
        if leg.parameter in action.names:
            square = (action.tensors[leg.parameter] + leg.offset).square()
            total += leg.power**2 * coordinate_sums(leg, square, n)
    inverse = torch.where(total > 0, total.reciprocal(), 0.0)
    return lambda slope: inverse * slope


def _by_moments(action: Infinitesimal, symmetry: LinearSymmetry, counted: frozenset[str]) -> Solve:
    """VᵀV X = X A + B X with the second moments A of vectors and B of covectors, solved on their principal axes."""
    group = symmetry.group
    without = [leg.parameter for leg in symmetry.legs if leg.parameter not in counted]
    a, b = second_moments(symmetry, action.tensors, without)
    if isinstance(group, ComplexScaling):
        trace = 0.5 * (a + b).diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
        return lambda slope: torch.where(trace > 0, slope / trace, 0.0)
    if isinstance(group, Orthogonal):
        a = b = 0.5 * (a + b)  # (X A + B X) for antisymmetric X and g⁻ᵀ = g, halved on both sides
    (values_a, axes_a), (values_b, axes_b) = torch.linalg.eigh(a), torch.linalg.eigh(b)
    sums = values_b.clamp_min(0)[:, :, None] + values_a.clamp_min(0)[:, None, :]
    inverse = torch.where(sums > _RANK * sums.amax((-2, -1), keepdim=True), sums.reciprocal(), 0.0)
    return lambda slope: axes_b @ (inverse * (axes_b.mT @ slope @ axes_a)) @ axes_a.mT


def _by_one_number(action: Infinitesimal, symmetry: Symmetry) -> Solve:
    """The mean of ‖V z‖²/‖z‖² over random z: exact for the kernels of layer norms."""
    some = action.tensors[symmetry.reads[0]]
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(action.shape, generator=generator, dtype=torch.float64).to(some.device)
    ratio = squared_norm(action.push(z).values()) / float(z.square().sum())
    return lambda slope: slope / ratio if ratio > 0.0 else torch.zeros_like(slope)


def check_finite(name: str, tensor: Tensor) -> None:
    """Raise :class:`NonFiniteError` if an entry of ``tensor`` is not finite."""
    if not bool(tensor.isfinite().all()):
        raise NonFiniteError(
            f"Expected finite values for '{name}', got {int((~tensor.isfinite()).sum())} that are not. "
            "Measure where training is healthy."
        )


def squared_norm(tensors: Iterable[Tensor]) -> float:
    """Return the sum of squares over all ``tensors``."""
    squares = [tensor.square().sum().cpu() for tensor in tensors]
    return float(torch.stack(squares).sum()) if squares else 0.0


def _dot(first: list[Tensor], second: list[Tensor]) -> float:
    return float(torch.stack([(a * b).sum().cpu() for a, b in zip(first, second, strict=True)]).sum())
