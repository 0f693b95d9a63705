"""Vertical fraction: how much of an update or a gradient only changes the gauge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gaugefix.errors import SymmetryError, did_you_mean
from gaugefix.functional.orbit_tangent import OrbitTangent
from gaugefix.symmetry import GaugeGroup, named_tensors

if TYPE_CHECKING:
    from torch import nn


@torch.no_grad()
def vertical_part(
    model: nn.Module, gauge: GaugeGroup, vectors: Mapping[str, Tensor], *, conditional: bool = False
) -> dict[str, Tensor]:
    """Return Π_vert Δ, the part of Δ along the orbit of ``model``'s parameters.

    Π_vert is the orthogonal projection onto { V ξ }, the directions in which the applied symmetries move the
    parameters; see :class:`gaugefix.functional.orbit_tangent.OrbitTangent` for how it is solved.

    Args:
        model: the model, at the point where Δ starts.
        gauge: its group.
        vectors: Δ by parameter name, each in the shape of its parameter; absent parameters count as 0.
        conditional: whether symmetries that hold only where some parameters are not zero
            (:attr:`gaugefix.symmetry.Symmetry.conditional`) count; near such a zero they are ill-conditioned.

    Returns:
        Float64 tensors by name, for the parameters that the group moves.

    Raises:
        SymmetryError: if the group belongs to another model, or a name or shape is not that of a parameter.
        NonFiniteError: if a parameter or a vector is not finite.
        GaugeError: if the iteration does not converge.
    """
    tensors = gauge.check(model)
    tangent = OrbitTangent(gauge, tensors, counted_names(model, gauge), conditional)
    return tangent.vertical(by_canonical_name(model, gauge, vectors))


@torch.no_grad()
def vertical_fraction(
    model: nn.Module, gauge: GaugeGroup, vectors: Mapping[str, Tensor], *, conditional: bool = False
) -> float:
    """Return ‖Π_vert Δ‖²/‖Δ‖²: 1 for a pure change of gauge, 0 for the gradient of an invariant loss.

    The gradient is exactly horizontal for any batch: L(exp(tξ)θ) = L(θ) gives ⟨∇L, V ξ⟩ = 0. So is an update of
    plain gradient descent; momentum, Adam, weight decay and gauge-fixing terms add vertical parts. (In eval mode the
    symmetries that also move the statistics of a batch norm make an exception: buffers are no part of Δ.)

    Args:
        model: the model, at the point where Δ starts.
        gauge: its group.
        vectors: Δ by parameter name; parameters that no symmetry moves count in ‖Δ‖².
        conditional: see :func:`vertical_part`.

    Returns:
        A number from 0 to 1; 0 for Δ = 0.

    Raises:
        SymmetryError: if the group belongs to another model, or a name or shape is not that of a parameter.
        NonFiniteError: if a parameter or a vector is not finite.
        GaugeError: if the iteration does not converge.

    Example:
        >>> import torch, gaugefix
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).double()
        >>> x = torch.randn(16, 4, dtype=torch.float64)
        >>> gauge = gaugefix.discover(net, (x,))
        >>> net(x).square().mean().backward()
        >>> gradient = {name: p.grad for name, p in net.named_parameters()}
        >>> vertical_fraction(net, gauge, gradient) < 1e-12
        True
        >>> decay = {name: p for name, p in net.named_parameters()}
        >>> 0.0 < vertical_fraction(net, gauge, decay) < 1.0
        True
    """
    tangent = OrbitTangent(gauge, gauge.check(model), counted_names(model, gauge), conditional)
    return tangent.fraction(by_canonical_name(model, gauge, vectors))


def counted_names(model: nn.Module, gauge: GaugeGroup) -> frozenset[str]:
    """Return the names of what the group moves and that is a parameter, not a buffer."""
    parameters = {id(p) for p in model.parameters()}
    return frozenset(name for name, tensor in gauge.check(model).items() if id(tensor) in parameters)


def by_canonical_name(model: nn.Module, gauge: GaugeGroup, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``vectors`` under the names that the group uses: a shared parameter counts once.

    Raises:
        SymmetryError: if a name or a shape is not that of a parameter.
    """
    tensors = named_tensors(model)
    known = {id(tensor): name for name, tensor in tensors.items() if name in gauge.shapes}
    found: dict[str, Tensor] = {}
    for name, vector in vectors.items():
        if name not in tensors:
            raise SymmetryError(f"Expected the name of a parameter, got '{name}'. {did_you_mean(name, tensors)}")
        if vector.shape != tensors[name].shape:
            raise SymmetryError(
                f"Expected shape {tuple(tensors[name].shape)} for the vector of '{name}', got {tuple(vector.shape)}. "
                "Give every vector the shape of its parameter."
            )
        found.setdefault(known.get(id(tensors[name]), name), vector)
    return found
