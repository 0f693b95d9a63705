"""Principal axes of a residual stream.

A rotation R of the stream acts on what writes into it as P → RP and, behind a gain, on what reads it as W → WγRᵀγ⁻¹:
the effective vectors P, Wγ and β/γ all turn by R, whatever the gain. The second moment S is summed over those legs on
whose parameters nothing else acts along other axes: token and position embeddings, the first and the last map. It
depends on no other gauge, so that the rotation can be fixed before everything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from gaugefix.groups import Orthogonal
from gaugefix.slices.axes import helmert, within_ones
from gaugefix.slices.second_moment import block_vectors
from gaugefix.slices.trail import Trail
from gaugefix.symmetry import Gain, Leg, LinearSymmetry, ResidualRotation, Symmetry


def anchored_legs(rotation: ResidualRotation, symmetries: Iterable[Symmetry]) -> list[tuple[Leg, Gain | None]]:
    """Legs of ``rotation`` on parameters that no other symmetry moves along another axis."""
    taken: dict[str, set[int]] = {}
    for s in symmetries:
        legs = s.legs if isinstance(s, LinearSymmetry) else ()
        if isinstance(s, ResidualRotation) and s is not rotation:
            legs = tuple(leg for leg, _ in s.legs)
        for leg in legs:
            taken.setdefault(leg.parameter, set()).update(leg.axes)
    return [(leg, gain) for leg, gain in rotation.legs if not taken.get(leg.parameter, set()) - set(leg.axes)]


def effective(rotation: ResidualRotation, leg: Leg, gain: Gain | None, tensors: Mapping[str, Tensor]) -> Tensor:
    """The vectors of a leg as they turn by R, (n, rest), float64."""
    vectors, _ = block_vectors(leg, tensors[leg.parameter], rotation.acting.n)
    if gain is not None:
        scale = gain.values(tensors).to(vectors.device)[:, None]
        vectors = vectors / scale if leg.power > 0 else vectors * scale
    return vectors.transpose(0, 1).flatten(1)


def stream_moment(
    rotation: ResidualRotation, legs: Iterable[tuple[Leg, Gain | None]], tensors: Mapping[str, Tensor]
) -> Tensor:
    """S = Σ PPᵀ over effective vectors, (n, n)."""
    n = rotation.acting.n
    total = torch.zeros(n, n, dtype=torch.float64, device=tensors[rotation.legs[0][0].parameter].device)
    for leg, gain in legs:
        vectors = effective(rotation, leg, gain, tensors)
        total = total + vectors @ vectors.mT
    return total


def turn_stream(trail: Trail, rotation: ResidualRotation) -> bool:
    """Fix R: S diagonal, decreasing, and a fixed odd sum over every axis positive. Return whether it could be fixed.

    It cannot where every leg shares its parameter with another symmetry, or where a gain is zero.
    """
    legs = anchored_legs(rotation, trail.gauge.applied)
    if not legs or has_zero_gain(rotation, trail.tensors):
        return False
    moment = stream_moment(rotation, legs, trail.tensors)
    group = rotation.acting
    turn = within_ones(moment[None], trail.eps, group.fixes_ones)[0]
    sums = torch.zeros(group.n, dtype=torch.float64, device=turn.device)
    frame = frame_of(group).to(turn.device)
    for leg, gain in legs:
        vectors = frame.mT @ (turn @ effective(rotation, leg, gain, trail.tensors))
        sums = sums + vectors @ generic_weights(vectors.shape[1]).to(vectors.device)
    signs = torch.where(sums < 0.0, -1.0, 1.0)
    if group.fixes_ones:
        signs[-1] = 1.0
    trail.go(rotation.name, ((frame * signs) @ frame.mT @ turn)[None])
    return True


def frame_of(group: Orthogonal) -> Tensor:
    """The axes onto which the principal axes are turned, as columns."""
    return helmert(group.n) if group.fixes_ones else torch.eye(group.n, dtype=torch.float64)


def generic_weights(n: int) -> Tensor:
    """Return n fixed numbers without a pattern: no sum of weights that a gauge condition makes vanish."""
    k = torch.arange(1, n + 1, dtype=torch.float64)
    return torch.cos(k * k * 0.618034 + k)


def has_zero_gain(rotation: ResidualRotation, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the rotation cannot pass one of its norms."""
    gains = [gain for _, gain in rotation.legs if gain is not None]
    return any(bool((tensors[gain.parameter] + gain.offset == 0).any()) for gain in gains)
