"""The infinitesimal action of a gauge group: which way each generator moves the parameters.

At parameters θ a generator ξ of the group moves them by V ξ = d/dt exp(tξ)·θ at t = 0. The image of V is the tangent
space of the orbit, the *vertical* directions; V and its transpose are all that is needed to project onto it. Per leg:

    scaling, power k        V ξ = k·ξ_i P_i               Vᵀ D = k·Σ D_i P_i
    matrix, vector          V X = X P                     Vᵀ D = D Pᵀ
    matrix, covector        V X = −Xᵀ P                   Vᵀ D = −P Dᵀ

For shifts, kernels and rotations behind gains, V is the derivative of their ``act`` at the identity.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from gaugefix.groups import ComplexScaling, DiagonalGroup, Group, Orthogonal
from gaugefix.slices.second_moment import coordinate_sums
from gaugefix.symmetry import Leg, LinearSymmetry, Symmetry
from gaugefix.symmetry.linear import mix_blocks, rows_of


class Infinitesimal(ABC):
    """V of one symmetry at fixed parameters, and its transpose.

    Args:
        symmetry: one of positive dimension.
        tensors: float64 parameters and buffers by name, at least those that it reads.
        counted: names of the entries of parameter space; what moves beside them is left out.
    """

    def __init__(self, symmetry: Symmetry, tensors: Mapping[str, Tensor], counted: Collection[str]) -> None:
        self.symmetry = symmetry
        self.tensors = tensors
        self.names = tuple(name for name in symmetry.parameters if name in counted)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a generator: (n,), or (batch, n, n) for a matrix group."""
        return self.symmetry.group.shape

    @abstractmethod
    def push(self, generator: Tensor) -> dict[str, Tensor]:
        """Return V ξ by parameter name. A matrix is first projected onto the algebra of its group."""

    @abstractmethod
    def pull(self, vectors: Mapping[str, Tensor]) -> Tensor:
        """Return Vᵀ D, of the shape of a generator, for D by parameter name (absent: 0)."""


def infinitesimal(symmetry: Symmetry, tensors: Mapping[str, Tensor], counted: Collection[str]) -> Infinitesimal:
    """Return the infinitesimal action of a symmetry: in closed form for linear ones, else by differentiating ``act``.

    Example:
        >>> import gaugefix
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).double()
        >>> gauge = gaugefix.discover(net, (torch.randn(3, 4),))
        >>> tensors = gauge.check(net)
        >>> action = infinitesimal(gauge["0:scale"], tensors, set(tensors))
        >>> moved = action.push(torch.ones(8, dtype=torch.float64))  # all units grow at once
        >>> bool((moved["0.bias"] == net[0].bias).all()), bool((moved["2.weight"] == -net[2].weight).all())
        (True, True)
    """
    closed = isinstance(symmetry, LinearSymmetry)
    return (LinearInfinitesimal if closed else DifferentiatedInfinitesimal)(symmetry, tensors, counted)


def onto_algebra(group: Group, x: Tensor) -> Tensor:
    """Return the algebra vector nearest to ``x``; for matrix groups, the orthogonal projection of the matrices."""
    if isinstance(group, ComplexScaling):
        scale = 0.5 * (x[:, 0, 0] + x[:, 1, 1])
        turn = 0.5 * (x[:, 1, 0] - x[:, 0, 1])
        return torch.stack([torch.stack([scale, -turn], -1), torch.stack([turn, scale], -1)], -2)
    if isinstance(group, Orthogonal):
        x = 0.5 * (x - x.mT)
        if group.fixes_ones:
            x = x - x.mean(-1, keepdim=True)
            x = x - x.mean(-2, keepdim=True)
    return x


class LinearInfinitesimal(Infinitesimal):
    """In closed form, leg by leg."""

    def __init__(self, symmetry: Symmetry, tensors: Mapping[str, Tensor], counted: Collection[str]) -> None:
        super().__init__(symmetry, tensors, counted)
        assert isinstance(symmetry, LinearSymmetry)
        self.linear = symmetry
        self.legs = [leg for leg in symmetry.legs if leg.parameter in self.names]

    def push(self, generator: Tensor) -> dict[str, Tensor]:
        group = self.linear.group
        x = onto_algebra(group, generator)
        moved: dict[str, Tensor] = {}
        for leg in self.legs:
            if isinstance(group, DiagonalGroup):
                part = self._point(leg) * leg.spread(leg.power * x, 0.0)
            else:
                part = self._mixed(leg, x if leg.power > 0 else -x.mT)
            moved[leg.parameter] = moved[leg.parameter] + part if leg.parameter in moved else part
        return moved

    def pull(self, vectors: Mapping[str, Tensor]) -> Tensor:
        group = self.linear.group
        total = self.tensors[self.linear.legs[0].parameter].new_zeros(self.shape)
        for leg in self.legs:
            given = vectors.get(leg.parameter)
            if given is None:
                continue
            if isinstance(group, DiagonalGroup):
                total = total + leg.power * coordinate_sums(leg, given * self._point(leg), group.coordinates)
            else:
                here, block = self.linear.vectors(leg, self._point(leg))
                there, _ = self.linear.vectors(leg, given)
                pair = (there, here) if leg.power > 0 else (-here, there)
                total.index_add_(0, block, torch.einsum("rmi,rmj->mij", *pair))
        return onto_algebra(group, total)

    def _point(self, leg: Leg) -> Tensor:
        tensor = self.tensors[leg.parameter]
        return tensor + leg.offset if leg.offset else tensor

    def _mixed(self, leg: Leg, matrix: Tensor) -> Tensor:
        rows, restore = rows_of(leg, self._point(leg))
        position, block = leg.places(self.linear.block, rows.device)
        out = torch.zeros_like(rows)
        mixed = mix_blocks(matrix, rows[:, position], block)
        out[:, position.reshape(-1)] = mixed.reshape(rows.shape[0], -1)
        return restore(out)


class DifferentiatedInfinitesimal(Infinitesimal):
    """By differentiating ``act`` at the identity.

    Needs a group of translations or matrices: e + X is then an element to first order. Vᵀ is a backward pass, which is
    linear in what it pulls back; V is the backward pass of that one. (Forward mode would import decompositions of torch
    that warn of deprecation.)
    """

    def __init__(self, symmetry: Symmetry, tensors: Mapping[str, Tensor], counted: Collection[str]) -> None:
        super().__init__(symmetry, tensors, counted)
        device = tensors[symmetry.reads[0]].device
        with torch.enable_grad():
            value = symmetry.group.identity(torch.float64, device).requires_grad_()
            moved = symmetry.act(tensors, value)
            self._slots = [torch.zeros_like(moved[name], requires_grad=True) for name in self.names]
            outputs = [moved[name] for name in self.names]
            (self._pulled,) = torch.autograd.grad(outputs, value, self._slots, create_graph=True)
        self._value, self._outputs = value, outputs

    def push(self, generator: Tensor) -> dict[str, Tensor]:
        x = onto_algebra(self.symmetry.group, generator)
        moved = torch.autograd.grad(self._pulled, self._slots, x, retain_graph=True)
        return dict(zip(self.names, moved, strict=True))

    def pull(self, vectors: Mapping[str, Tensor]) -> Tensor:
        given = [vectors[name] if name in vectors else torch.zeros_like(self.tensors[name]) for name in self.names]
        (pulled,) = torch.autograd.grad(self._outputs, self._value, given, retain_graph=True)
        return onto_algebra(self.symmetry.group, pulled)
