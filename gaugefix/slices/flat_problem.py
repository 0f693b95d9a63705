"""The problem of the flat slice: balance the second moments of gradients over scalings, planes and GL blocks."""

from __future__ import annotations

import weakref
from collections.abc import Mapping

import torch
from torch import Tensor

from gaugefix.slices.balance import Balance
from gaugefix.slices.block import balance_blocks, full_rank
from gaugefix.slices.blocks import Blocks
from gaugefix.slices.gradient_moments import GradientMoments
from gaugefix.slices.moment_transport import gradient_part, moved_moments
from gaugefix.slices.term import Moments
from gaugefix.symmetry import Element, GaugeGroup, LinearSymmetry

_DEAD = 1e-20
"""Units and blocks whose gradients are smaller than this share of the largest ones, squared, stay where they are."""
_COUPLED = 1e-2
"""Largest |log| of a block at which alternations stop: the statistics know couplings no better (tests/slices)."""


class FlatProblem:
    """The flat problem of a gauge group, compiled once."""

    def __init__(self, gauge: GaugeGroup) -> None:
        self.gauge = gradient_part(gauge)
        self.balance = Balance(self.gauge)
        mixing = [s for s in self.gauge.symmetries if s.name not in self.balance.classes]
        self.blocks = Blocks([s for s in mixing if isinstance(s, LinearSymmetry)])

    def solve(self, moments: GradientMoments, tensors: Mapping[str, Tensor], tolerance: float, rounds: int) -> Element:
        """Return the element, one step per symmetry."""
        squares, products = self._moments(moments, tensors)
        totals: dict[str, Tensor] = {}
        for _ in range(rounds):
            steps = self._scales(squares, tensors, tolerance)
            alone = not self.blocks.symmetries
            for name, value in [] if alone else steps:
                self._move(name, value, squares, products, moments)
            largest = 0.0
            for s in self.blocks.symmetries:
                g, size = self._block(s, products, moments)
                if size > 0.0:
                    self._move(s.name, g, squares, products, moments)
                    steps.append((s.name, g))
                largest = max(largest, size)
            for name, value in steps:
                group = self.gauge[name].group
                totals[name] = group.compose(value, totals[name]) if name in totals else value
            if alone or largest <= max(tolerance, _COUPLED) or (not self.balance.size and self.blocks.exact):
                break
        return Element(tuple(totals.items()))

    def residual(self, moments: GradientMoments, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return ‖F_in − F_out‖ over live units and blocks of full rank, relative to ΣF."""
        squares, products = self._moments(moments, tensors)
        total, norm = torch.zeros(2, dtype=torch.float64).unbind()
        if self.balance.size:
            now = self.balance.here(self._roots(squares, tensors))
            total = ((now.ins - now.outs) * _alive(now)).square().sum().cpu()
            norm = now.norm().cpu()
        for s in self.blocks.symmetries:
            a, b = self._sides(s, products, moments)
            full = (full_rank(a) & full_rank(b))[:, None, None]
            total = total + ((a - b) * full).square().sum().cpu()
        others = {leg.parameter for s in self.blocks.symmetries for leg in s.legs}
        for name in (others - {term.parameter for term in self.balance.terms}) & squares.keys():
            norm = norm + squares[name].sum().cpu()
        return total.sqrt() / norm if float(norm) else total

    def _moments(
        self, moments: GradientMoments, tensors: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Squares and products on the devices of the parameters (those of a checkpoint may lie elsewhere)."""
        squares = {name: known.to(tensors[name].device) for name, known in moments.squares().items()}
        places = {key: tensors[block.leg.parameter].device for key, block in moments.blocks.items()}
        return squares, {key: known.to(places[key]) for key, known in moments.products().items()}

    def _scales(
        self, squares: Mapping[str, Tensor], tensors: Mapping[str, Tensor], tolerance: float
    ) -> list[tuple[str, Tensor]]:
        """The scalings that balance the squares: those of gradients move the other way."""
        if not self.balance.size:
            return []
        roots = self._roots(squares, tensors)
        now = self.balance.here(roots)
        alive = _alive(now)
        u = self.balance.solve(roots, tolerance, now=now)
        return self.balance.scales(torch.where(alive, -u, 0.0))

    def _roots(self, squares: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """√F in the place of the parameters, relative to all of them; zero where nothing was observed."""
        names = [term.parameter for term in self.balance.terms]
        known = [squares[name] for name in names if name in squares]
        total = sum(float(square.sum()) for square in known)
        if not total > 0.0:
            return {name: torch.zeros_like(tensors[name], dtype=torch.float32) for name in names}
        roots = torch._foreach_mul(known, 1.0 / total)
        torch._foreach_sqrt_(roots)
        found = dict(zip((name for name in names if name in squares), roots, strict=True))
        like = roots[0]
        return {n: found[n] if n in found else torch.zeros_like(tensors[n], dtype=like.dtype) for n in names}

    def _block(
        self, symmetry: LinearSymmetry, products: Mapping[str, Tensor], moments: GradientMoments
    ) -> tuple[Tensor, float]:
        """G and the largest |log| of its eigenvalues for one symmetry."""
        a, b = self._sides(symmetry, products, moments)
        scale = max((float(p.diagonal(dim1=-2, dim2=-1).sum(-1).max()) for p in products.values()), default=0.0)
        if scale > 0.0:
            a, b = a / scale, b / scale  # far from underflow
        size = (a + b).diagonal(dim1=-2, dim2=-1).sum(-1)
        share = torch.full_like(size, self.blocks.shares[symmetry.name])
        g, sizes = balance_blocks(b, a, share, size > _DEAD)
        return g, float(sizes.max())

    def _sides(
        self, symmetry: LinearSymmetry, products: Mapping[str, Tensor], moments: GradientMoments
    ) -> tuple[Tensor, Tensor]:
        """E[G Gᵀ] over vectors and over covectors, (batch, n, n) each."""
        like = next(iter(products.values()), torch.zeros((), dtype=torch.float64))
        sides = [like.new_zeros(symmetry.group.shape) for _ in range(2)]
        for k, leg in enumerate(symmetry.legs):
            known = products.get(f"{symmetry.name}/{k}")
            if known is not None:
                sides[0 if leg.power > 0 else 1] += known.to(like.device)
        return sides[0], sides[1]

    def _move(
        self,
        name: str,
        value: Tensor,
        squares: dict[str, Tensor],
        products: dict[str, Tensor],
        moments: GradientMoments,
    ) -> None:
        changed = moved_moments(self.gauge[name], value, squares, products, moments.blocks)
        for target, new in zip((squares, products), changed, strict=True):
            target.update({key: tensor for key, tensor in new.items() if tensor is not None})


_COMPILED: weakref.WeakKeyDictionary[GaugeGroup, FlatProblem] = weakref.WeakKeyDictionary()


def problem_of(gauge: GaugeGroup) -> FlatProblem:
    """The compiled problem of a gauge group (cached)."""
    if gauge not in _COMPILED:
        _COMPILED[gauge] = FlatProblem(gauge)
    return _COMPILED[gauge]


def _alive(now: Moments) -> Tensor:
    """Units with gradients on both sides that matter."""
    size = now.ins + now.outs
    return (torch.minimum(now.ins, now.outs) > 0.0) & (size > _DEAD * size.max())
