"""Rotations and permutations nearest to a reference: Procrustes and assignment problems."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from gaugefix.groups import Orthogonal
from gaugefix.slices.axes import helmert
from gaugefix.slices.nearest_block import nearest_orthogonal
from gaugefix.slices.nearest_scale import cross_sums
from gaugefix.slices.second_moment import block_vectors
from gaugefix.symmetry import LinearSymmetry, ResidualRotation

_STEPS = 200


def nearest_rotation(symmetry: LinearSymmetry, tensors: Mapping[str, Tensor], goal: Mapping[str, Tensor]) -> Tensor:
    """Return the orthogonal element nearest to ``goal``, in closed form: vectors and covectors turn alike."""
    group = symmetry.group
    vectors, covectors = cross_sums(symmetry, tensors, goal)
    return _within(vectors + covectors, isinstance(group, Orthogonal) and group.fixes_ones)


def nearest_stream(symmetry: ResidualRotation, tensors: Mapping[str, Tensor], goal: Mapping[str, Tensor]) -> Tensor:
    """Return the rotation of a residual stream nearest to ``goal``, a local minimum.

    Behind a gain, with D = γ for vectors and 1/γ for covectors and Y = D⁻¹P, the distance ‖DRY − P₀‖² is a quadratic
    form in R. Its Hessian is bounded, so that R ← polar(LR − ½∇) never increases it; without gains one step is exact.
    """
    n = symmetry.acting.n
    device = tensors[symmetry.legs[0][0].parameter].device
    linear = torch.zeros(n, n, dtype=torch.float64, device=device)
    plain = torch.zeros_like(linear)
    quadratic: list[tuple[Tensor, Tensor]] = []
    for leg, gain in symmetry.legs:
        here = _flat(block_vectors(leg, tensors[leg.parameter], n)[0])
        there = _flat(block_vectors(leg, goal[leg.parameter], n)[0])
        if gain is None:
            linear, plain = linear + there @ here.mT, plain + there @ here.mT
            continue
        scale = gain.values(tensors).to(device)[:, None]
        scale = scale if leg.power > 0 else scale.reciprocal()
        here = here / scale
        linear, plain = linear + (scale * there) @ here.mT, plain + (there / scale) @ here.mT
        quadratic.append((scale.square() - scale.square().min(), here @ here.mT))
    bound = sum(float(d.max()) * float(torch.linalg.eigvalsh(s)[-1]) for d, s in quadratic)

    def slope(r: Tensor) -> Tensor:
        total = torch.zeros_like(r)
        for d, s in quadratic:
            total = total + d * (r @ s)
        return total

    def value(r: Tensor) -> float:
        return float(((slope(r) - 2.0 * linear) * r).sum())

    fixes = symmetry.acting.fixes_ones
    starts = [torch.eye(n, dtype=torch.float64, device=device), _within(plain[None], fixes)[0]]
    r = min(starts, key=value)
    for _ in range(_STEPS):
        new = _within((bound * r - slope(r) + linear)[None], fixes)[0]
        change = float((new - r).abs().max())
        r = new
        if change < 1e-12:
            break
    return r[None]


def nearest_permutation(
    symmetry: LinearSymmetry, tensors: Mapping[str, Tensor], goal: Mapping[str, Tensor], signed: bool = False
) -> Tensor:
    """Return the permutation nearest to ``goal``, a linear assignment problem: the largest Σ_i ⟨P₀_i, P_{p_i}⟩.

    With ``signed`` the largest Σ_i |⟨P₀_i, P_{p_i}⟩|, for units whose signs are free as well.
    """
    n = symmetry.group.coordinates
    device = tensors[symmetry.legs[0].parameter].device
    gain = torch.zeros(n, n, dtype=torch.float64, device=device)
    for leg in symmetry.legs:
        if not leg.buffer:
            here, _ = block_vectors(leg, tensors[leg.parameter], n)
            there, _ = block_vectors(leg, goal[leg.parameter], n)
            gain = gain + (there @ here.mT).sum(0)
    _, chosen = linear_sum_assignment((gain.abs() if signed else gain).cpu().numpy(), maximize=True)
    return torch.from_numpy(np.asarray(chosen, dtype=np.int64)).to(device)


def _flat(vectors: Tensor) -> Tensor:
    """(copies, n, rest) → (n, copies · rest)."""
    return vectors.transpose(0, 1).flatten(1)


def _within(moment: Tensor, fixes_ones: bool) -> Tensor:
    """The nearest orthogonal matrices, or those that keep the ones."""
    if not fixes_ones:
        return nearest_orthogonal(moment)
    n = moment.shape[-1]
    basis = helmert(n).to(moment.device)
    turn = torch.eye(n, dtype=moment.dtype, device=moment.device).repeat(moment.shape[0], 1, 1)
    turn[:, :-1, :-1] = nearest_orthogonal((basis.mT @ moment @ basis)[:, :-1, :-1])
    return basis @ turn @ basis.mT
