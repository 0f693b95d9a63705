"""How far a solver is from the flow that it approximates."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from gaugefix.demo.extras import require
from gaugefix.demo.ode_net import OdeNet


@torch.no_grad()
def solver_error(net: OdeNet, u: Tensor) -> float:
    """Return ‖x̂ − x‖/‖x‖ over a batch and all times of outputs, in float64.

    x̂ are the states as ``net`` integrates them, x those of dopri8 at a relative tolerance of 1e-9.

    Args:
        net: left as it is; a copy in float64 is asked.
        u: inputs, (batch, inputs).

    Returns:
        NaN where dopri8 finds no way, as on a field that has diverged.
    """
    exact = copy.deepcopy(net).double()
    x = exact.encoder(u.double())
    try:
        reference = flow_through(exact, x, exact.times)[1:]
    except AssertionError:  # so torchdiffeq says that a step vanishes, or that there are too many
        return math.nan
    states = exact.solve(x, exact.grid)[exact.reads][1:]
    return float((states - reference).norm() / reference.norm())


def flow_through(net: OdeNet, x: Tensor, times: Tensor, rtol: float = 1e-9) -> Tensor:
    """Return the states at some times to a tight tolerance.

    Args:
        net: in float64.
        x: states at the first time, (batch, dimension).
        times: rising, (times,).
        rtol: relative tolerance of dopri8; the absolute one is a hundredth.

    Returns:
        Shape (times, batch, dimension); the first is x.

    Raises:
        AssertionError: the tolerance cannot be met, or not in 1000 steps.
    """
    options = {
        "step_t": times,
        "max_num_steps": 1000,
    }  # it stops at these times; its interpolation is less exact than its steps
    states: Tensor = require("torchdiffeq", "a neural ODE").odeint(
        net.field, x, times, method="dopri8", rtol=rtol, atol=rtol / 100, options=options
    )
    return states
