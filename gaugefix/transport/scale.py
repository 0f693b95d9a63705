"""The fast path: multiply everything by the factors of diagonal steps, in a few fused calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter

import torch
from torch import Tensor

from gaugefix.groups import DiagonalGroup
from gaugefix.sharding import factor_here, is_dtensor, rows_here
from gaugefix.symmetry import GRADIENT, RATIO, Leg, LinearSymmetry, Symmetry
from gaugefix.transport.attachments import Attached


def is_plain_scaling(symmetry: Symmetry) -> bool:
    """Whether a symmetry acts by factors alone (a diagonal group, no offset)."""
    return (
        isinstance(symmetry, LinearSymmetry)
        and isinstance(symmetry.group, DiagonalGroup)
        and not any(leg.offset for leg in symmetry.legs)
    )


def scale_(everything: Iterable[Attached], steps: Sequence[tuple[Symmetry, Tensor]]) -> None:
    """Multiply every tensor by λ^(power·law) along each of its legs (by the sign of that, where the law is RATIO).

    All λ lie in one flat vector, so that every power is computed once for the whole model.
    """
    legs: dict[str, list[tuple[int, Leg]]] = {}
    for k, (symmetry, _) in enumerate(steps):
        assert isinstance(symmetry, LinearSymmetry)
        for leg in symmetry.legs:
            legs.setdefault(leg.parameter, []).append((k, leg))
    if not legs:
        return
    flat = torch.cat([value.reshape(-1) for _, value in steps])
    sizes = [value.numel() for _, value in steps]
    tables: dict[object, _Factors] = {}
    rounds: list[tuple[list[Tensor], list[Tensor]]] = []
    for item in everything:
        moving = legs.get(item.parameter, ())
        target = item.tensor
        # A factor in half precision would add its own rounding error, the same for a whole row.
        dtype = torch.float64 if target.dtype == torch.float64 else torch.float32
        key = (item.law, dtype, target.device)
        factors = tables.get(key)
        if factors is None:
            factors = tables[key] = _Factors(flat, sizes, *key)
        sharded = is_dtensor(target)
        # A CPU goes through the list in order, so that a matrix is still in its cache for the second factor.
        together = target.device.type == "cpu"
        for depth, (k, leg) in enumerate(moving):
            if depth == len(rounds):
                rounds.append(([], []))
            targets, multipliers = rounds[0 if together else depth]
            if sharded:
                targets.append(rows_here(target))
                multipliers.append(factor_here(target, leg.spread(factors.raised(leg.power)[0][k], 1.0)))
            else:
                targets.append(target)
                multipliers.append(factors.of(k, leg, target.shape))
    for targets, multipliers in filter(itemgetter(0), rounds):
        torch._foreach_mul_(targets, multipliers)


class _Factors:
    """Powers of all λ at once for one law, laid out over legs on demand.

    Args:
        flat: all λ, one step after another.
        sizes: how many each step has.
        law: how what is multiplied moves.
        dtype: of the factors.
        device: of the factors.
    """

    def __init__(self, flat: Tensor, sizes: list[int], law: int, dtype: torch.dtype, device: torch.device) -> None:
        self.flat = flat
        self.sizes = sizes
        self.law = law
        self.dtype = dtype
        self.device = device
        self.powers: dict[int, tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] = {}
        self.laid_out: dict[tuple[int, int], Tensor] = {}

    def of(self, k: int, leg: Leg, shape: torch.Size) -> Tensor:
        """The factor of step ``k`` along one leg, for tensors of the shape of its parameter."""
        place = (k, id(leg))  # k: one symmetry may act in several steps
        found = self.laid_out.get(place)
        if found is None:
            found = self.laid_out[place] = self._lay_out(k, leg, shape)
        return found

    def raised(self, power: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """λ to the power that a leg moves by, for every step: as rows, (n,), and as columns, (n, 1)."""
        if power not in self.powers:
            exponent = power * (GRADIENT if self.law == RATIO else self.law)
            value = self.flat if exponent == 1 else self.flat.pow(exponent)
            value = (value.sign() if self.law == RATIO else value).to(self.device, self.dtype)
            self.powers[power] = (
                torch.split_with_sizes(value, self.sizes),
                torch.split_with_sizes(value[:, None], self.sizes),
            )
        return self.powers[power]

    def _lay_out(self, k: int, leg: Leg, shape: torch.Size) -> Tensor:
        rows, columns = self.raised(leg.power)
        if not leg.covers(self.sizes[k]):
            factor = leg.spread(rows[k], 1.0)
        elif leg.index.shape[-1] > 1 or leg.index.size == 1:
            factor = rows[k]  # along the last axis, where it broadcasts as it is
        elif leg.index.ndim == 2:
            factor = columns[k]
        else:
            factor = rows[k].view(leg.index.shape)
        if len(shape) > 2 and factor.ndim == len(shape) and factor.shape[0] == 1:
            # Along an inner axis with a few entries behind it, such as the taps of a convolution: written out, the
            # product runs through memory in one stretch (six times as fast for 3 × 3 taps).
            inner = next((axis for axis, size in enumerate(factor.shape) if size > 1), len(shape))
            if shape[inner + 1 :].numel() > 1:
                factor = factor.expand(*factor.shape[:inner], *shape[inner:]).contiguous()
        return factor
