"""Scalings and planes nearest to a reference: one problem in one variable per unit.

With a_p = Σ P² and b_p = ΣPP₀ over legs of power p, the squared distance of a unit at λ = ±eᵘ is, up to a constant,
φ(u) = Σ_p a_p e^{2pu} − 2(±1)ᵖ b_p e^{pu}. It may have two minima, so that a coarse grid chooses before Newton's method
refines. A plane first takes the best phase for each r, which leaves φ(u) = a e^{2u} + b e^{−2u} − 2|c eᵘ + d e^{−u}|.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from gaugefix.groups import ComplexScaling, PositiveScaling, SignedScaling
from gaugefix.slices.second_moment import coordinate_sums, cross_moments, second_moments
from gaugefix.symmetry import LinearSymmetry

Line = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""φ, φ′ and φ″ at u, all (…, units)."""

_GRID = torch.linspace(-8.0, 8.0, 129, dtype=torch.float64)


def minimise(line: Line, units: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return u and φ(u), (units,) each: no worse than u = 0.

    A unit whose φ only falls towards an end of the grid, |u| = 8, has no nearest point and stays at u = 0.
    """
    grid = _GRID.to(device)[:, None].expand(-1, units)
    values = line(grid)[0]
    zero = torch.zeros(units, dtype=torch.float64, device=device)
    lowest = values.argmin(0, keepdim=True)
    inside = ((lowest > 0) & (lowest < grid.shape[0] - 1))[0]
    u = grid.gather(0, lowest)[0]
    u = torch.where(inside & (values.gather(0, lowest)[0] < line(zero)[0]), u, zero)
    for _ in range(30):
        value, slope, curvature = line(u)
        step = -slope / torch.where(curvature > 0.0, curvature, slope.abs().clamp_min(1e-300) / 0.1)
        step = step.clamp(-0.2, 0.2) * inside
        after = line(u + step)[0]
        u = torch.where(after <= value, u + step, torch.where(line(u + 0.25 * step)[0] < value, u + 0.25 * step, u))
        if float(step.abs().max()) < 1e-13:
            break
    return u, line(u)[0]


def nearest_scaling(
    symmetry: LinearSymmetry, tensors: Mapping[str, Tensor], goal: Mapping[str, Tensor], compact: bool
) -> Tensor:
    """Return the element of a diagonal group nearest to ``goal``; with ``compact`` only its signs."""
    group = symmetry.group
    n, device = group.coordinates, tensors[symmetry.legs[0].parameter].device
    powers = sorted({leg.power for leg in symmetry.legs if not leg.buffer})
    squares = {p: torch.zeros(n, dtype=torch.float64, device=device) for p in powers}
    products = {p: torch.zeros(n, dtype=torch.float64, device=device) for p in powers}
    for leg in symmetry.legs:
        if not leg.buffer:
            here, there = tensors[leg.parameter] + leg.offset, goal[leg.parameter] + leg.offset
            squares[leg.power] += coordinate_sums(leg, here.square(), n)
            products[leg.power] += coordinate_sums(leg, here * there, n)
    odd = torch.stack([products[p] for p in powers if p % 2] or [torch.zeros(n, dtype=torch.float64, device=device)])
    flips = torch.where(odd.sum(0) < 0.0, -1.0, 1.0)
    if compact or group.dimension == 0:
        return torch.ones_like(flips) if isinstance(group, PositiveScaling) else flips

    def line(sign: float) -> Line:
        def phi(u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            total = [torch.zeros_like(u) for _ in range(3)]
            for p in powers:
                grown = (p * u).exp()
                first, second = squares[p] * grown.square(), sign**p * products[p] * grown
                total[0] = total[0] + first - 2.0 * second
                total[1] = total[1] + 2.0 * p * (first - second)
                total[2] = total[2] + 2.0 * p * p * (2.0 * first - second)
            return total[0], total[1], total[2]

        return phi

    u, value = minimise(line(1.0), n, device)
    if not isinstance(group, SignedScaling):
        return u.exp()
    v, other = minimise(line(-1.0), n, device)
    return torch.where(other < value, -v.exp(), u.exp())


def nearest_planes(
    symmetry: LinearSymmetry, tensors: Mapping[str, Tensor], goal: Mapping[str, Tensor], compact: bool
) -> Tensor:
    """Return the complex scaling nearest to ``goal``; with ``compact`` only its phases."""
    group = symmetry.group
    assert isinstance(group, ComplexScaling)
    a, b = (m.diagonal(dim1=-2, dim2=-1).sum(-1) for m in second_moments(symmetry, tensors))
    c, d = (_complex(m) for m in cross_sums(symmetry, tensors, goal))

    def phi(u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        up, down = (2.0 * u).exp(), (-2.0 * u).exp()
        inside = c.abs().square() * up + d.abs().square() * down + 2.0 * (c * d.conj()).real
        root = inside.clamp_min(1e-300).sqrt()
        slope = 2.0 * (c.abs().square() * up - d.abs().square() * down)
        bend = 4.0 * (c.abs().square() * up + d.abs().square() * down)
        curvature = 4.0 * (a * up + b * down) - bend / root + 0.5 * slope.square() / root**3
        return a * up + b * down - 2.0 * root, 2.0 * (a * up - b * down) - slope / root, curvature

    u = torch.zeros_like(a) if compact else minimise(phi, group.batch, a.device)[0]
    turned = c * u.exp() + d * (-u).exp()
    z = torch.where(turned == 0.0, torch.ones_like(turned), turned.conj() / turned.abs().clamp_min(1e-300)) * u.exp()
    return torch.stack([torch.stack([z.real, -z.imag], -1), torch.stack([z.imag, z.real], -1)], -2)


def cross_sums(
    symmetry: LinearSymmetry, tensors: Mapping[str, Tensor], goal: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Σ P₀Pᵀ over vectors and over covectors, (batch, n, n), float64."""
    batch, n = symmetry.group.shape[:2]
    device = tensors[symmetry.legs[0].parameter].device
    sums = [torch.zeros(batch, n, n, dtype=torch.float64, device=device) for _ in range(2)]
    for leg in symmetry.legs:
        if not leg.buffer:
            part = cross_moments(leg, goal[leg.parameter], tensors[leg.parameter], n, batch)
            sums[0 if leg.power > 0 else 1] += part
    return sums[0], sums[1]


def _complex(moment: Tensor) -> Tensor:
    """Σ p p̄₀ from Σ P₀Pᵀ, with p = P₀ + iP₁ of each."""
    return torch.complex(moment[:, 0, 0] + moment[:, 1, 1], moment[:, 0, 1] - moment[:, 1, 0])
