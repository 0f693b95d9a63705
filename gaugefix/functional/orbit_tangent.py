"""The tangent space of an orbit, and the orthogonal projection onto it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from gaugefix.errors import GaugeError, NonFiniteError
from gaugefix.functional.infinitesimal import infinitesimal
from gaugefix.functional.preconditioner import preconditioner
from gaugefix.symmetry import GaugeGroup

Vectors = dict[str, Tensor]

_TOLERANCE = 1e-7
"""Of the part that is left, against the vector."""
_STEPS = 2000


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

    Attributes:
        actions: V of every symmetry.
        names: the parameters that the group moves.
        steps: of the iteration, for the last vector.

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
