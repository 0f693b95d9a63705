"""The flow of a differential equation: what acts on its states, at all times alike, has to commute with its field.

A state h at any time, its velocity v = f(t, h) and a later state h + v transform alike: x ↦ G x + c of the state gives
v ↦ G v, so that f(t, G x + c) = G f(t, x) at every time t, which no rule knows. One evaluation says it all.
"""

from __future__ import annotations

import torch

from gaugefix.discovery.call import Call
from gaugefix.discovery.interpreter import Pass
from gaugefix.discovery.labels import ZERO
from gaugefix.discovery.rules.registry import register
from gaugefix.discovery.value import Value, pad_left, values_in


def state(ctx: Pass, call: Call) -> Value:
    """Transforms like the initial state; a channel that is 0 at the start does not stay so."""
    x = call.input
    legs = []
    for leg in (pad_left(leg, len(call.shape)) for leg in x.legs):
        legs.append(torch.where(leg == ZERO, ctx.labels.fresh(*leg.shape), leg))
    return Value(call.shape, tuple(legs), shift=ctx.shift_of(x, len(call.shape)))


def velocity(ctx: Pass, call: Call) -> Value:
    """Transforms like a difference of states: a shift of it would grow with time."""
    ctx.pin(call.input)
    return Value(call.shape, call.input.legs)


def moment(ctx: Pass, call: Call) -> Value:
    """A time is a number: what it is computed from may not change."""
    ctx.freeze(values_in(dict(call.arguments)), "is a time of a differential equation")
    return Value(call.shape)


register("gaugefix.state", state, "a trajectory keeps the representation of its start")
register("gaugefix.velocity", velocity, "d/dt (G x + c) = G dx/dt")
register("gaugefix.moment", moment, "fields may depend on time in any way")
