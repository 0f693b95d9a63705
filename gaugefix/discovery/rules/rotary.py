"""Rotary positions: planes of channels turn by angles that depend on the position.

What commutes with all rotations of a plane is a factor and a rotation, GL(1, ℂ). Channels that are not turned pass
through.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gaugefix.discovery.call import Call
from gaugefix.discovery.fusion.rotary import Rotary
from gaugefix.discovery.interpreter import Pass
from gaugefix.discovery.labels import COMPLEX, DIAGONAL, FIXED, NOTHING, ZERO
from gaugefix.discovery.rules.registry import register
from gaugefix.discovery.shifts import Terms
from gaugefix.discovery.value import Value, varies


def rotary(ctx: Pass, call: Call) -> Value:
    """Turn planes of the last axis; a shift of turned channels would vary with the position."""
    x = call.input
    what: Rotary = call["rotary"]
    planes = torch.tensor(what.planes)
    turned = planes.reshape(-1)
    moving = torch.cat([turned, torch.tensor(what.scaled, dtype=torch.long)])
    legs: list[Tensor] = []
    for leg in x.legs:
        # Heads or positions that turn by different angles do not mix, and do not change places.
        differ = [k for k in varies(leg) if k - leg.ndim in what.axes]
        if differ:
            ctx.labels.fibre(leg, [k for k in range(leg.ndim) if k not in differ])
        if leg.shape[-1] == 1:
            legs.append(leg)
            continue
        leg = _without_halves(ctx, leg, planes)
        legs.append(leg)
        first, second = leg[..., planes[:, 0]], leg[..., planes[:, 1]]
        ctx.labels.restrict(leg[..., turned], COMPLEX, "turned by rotary positions")
        ctx.labels.plane(first, second)
        if what.scaled:
            others = leg[..., list(what.scaled)]
            ctx.labels.restrict(others, DIAGONAL, "scaled by positions")
            ctx.labels.fibre(others, [])
    terms: Terms = []
    for coefficient, index in ctx.shift_of(x, len(x.shape)):
        full = index.expand(*index.shape[:-1], x.shape[-1]).clone()
        ctx.shifts.pin([(coefficient, full[..., moving])])
        full[..., moving] = -1
        terms.append((coefficient, full))
    return Value(call.shape, tuple(legs), shift=_present(terms))


def _without_halves(ctx: Pass, leg: Tensor, planes: Tensor) -> Tensor:
    """A channel of zeros does not stay one if its partner turns into it: such planes are fixed."""
    pair = leg[..., planes]
    half = (pair == ZERO).any(-1, keepdim=True) & (pair != ZERO)
    ctx.labels.restrict(pair[half], NOTHING, "turned into a channel of zeros")
    fixed = torch.where(half.any(-1, keepdim=True), FIXED, pair)
    leg = leg.clone()
    leg[..., planes.reshape(-1)] = fixed.flatten(-2)
    return leg


def _present(terms: Terms) -> Terms:
    return [(c, i) for c, i in terms if bool(_any(i))]


def _any(index: Tensor) -> Tensor:
    return (index >= 0).any()


register("gaugefix.rotary", rotary, "planes of channels turn by angles that depend on the position")
