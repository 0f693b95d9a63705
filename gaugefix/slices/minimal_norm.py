"""Minimal norm (Landau gauge): the point of the orbit where Σ‖P‖² is smallest.

It exists, is unique up to rotations, and is where the moment map vanishes (Kempf–Ness; MATH §3): in_i = out_i for
every scaled unit, Σ PPᵀ over vectors = Σ PPᵀ over covectors for a GL block, orthogonality to every shift and kernel.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping

import torch
from torch import Tensor

from gaugefix.sharding import Shards
from gaugefix.slices.balance import Balance
from gaugefix.slices.base import Slice, register_slice
from gaugefix.slices.joint import Joint
from gaugefix.slices.sharded_balance import ShardedBalance
from gaugefix.symmetry import Element, GaugeGroup

_COMPILED: weakref.WeakKeyDictionary[GaugeGroup, Joint] = weakref.WeakKeyDictionary()
_COMPILED_FOR_SHARDS: weakref.WeakKeyDictionary[GaugeGroup, Joint] = weakref.WeakKeyDictionary()


def joint_of(gauge: GaugeGroup) -> Joint:
    """The compiled problem of a gauge group (cached)."""
    if gauge not in _COMPILED:
        _COMPILED[gauge] = Joint(gauge)
    return _COMPILED[gauge]


def joint_for(gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> Joint:
    """The compiled problem for these tensors, which may be shards."""
    if not isinstance(tensors, Shards):
        return joint_of(gauge)
    joint = _COMPILED_FOR_SHARDS.get(gauge)
    if joint is None:
        joint = _COMPILED_FOR_SHARDS[gauge] = Joint(gauge, ShardedBalance(gauge))
    assert isinstance(joint.balance, ShardedBalance)
    joint.balance.lay_out(tensors)
    return joint


def balance_of(gauge: GaugeGroup) -> Balance:
    """The compiled balance problem of a gauge group (cached)."""
    return joint_of(gauge).balance


@register_slice("minimal_norm")
class MinimalNorm(Slice):
    """The minimal-norm slice.

    Diagonal groups are balanced together (:class:`Balance`); a GL block is solved in closed form
    (:func:`balance_blocks`); shifts and kernels by an orthogonal projection (:func:`least_norm`). Where several kinds
    couple, they alternate until nothing moves. One shift is fixed otherwise: where readers of a layer norm have a
    kernel, its β goes into their biases, for over both together the norm has several minima.

    Args:
        tolerance: largest |log λ| (or relative step of the other kinds) that is left.
        rounds: limit of alternations.
    """

    takes_shards = True

    def __init__(self, tolerance: float = 1e-4, rounds: int = 200) -> None:
        self.tolerance = tolerance
        self.rounds = rounds

    @torch.no_grad()
    def solve(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> Element:
        return Element(tuple(joint_for(gauge, tensors).solve(tensors, self.tolerance, self.rounds)))

    @torch.no_grad()
    def residual(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return ‖μ‖/‖θ‖², over scalings and blocks: μ_i = in_i − out_i, μ = A − B."""
        return joint_for(gauge, tensors).residual(tensors)

    @torch.no_grad()
    def measure(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> tuple[Element, Tensor]:
        joint = joint_for(gauge, tensors)
        now = joint.balance.here(tensors) if joint.balance.size else None
        steps = joint.solve(tensors, self.tolerance, self.rounds, now)
        return Element(tuple(steps)), joint.residual(tensors, now)
