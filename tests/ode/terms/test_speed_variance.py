import math

import pytest
import torch

from gaugefix.ode import push_forward, speed_variance
from tests.ode.fields import inputs, orders
from tests.ode.terms.solutions import decay, swing, times


def test_the_closed_form_at_second_order():
    x, end = inputs(n=3), 2.0
    expected = (end * (1 - math.exp(-2 * end)) / 2 - (1 - math.exp(-end)) ** 2) * float(x.square().sum(-1).mean())
    errors = []
    for intervals in (16, 32, 64):
        t = times(intervals, end)
        errors.append(abs(float(speed_variance(decay, t, x * torch.exp(-t)[:, None, None])) - expected))
    assert orders(errors) == pytest.approx([2, 2], abs=0.05)


def test_proper_time_makes_it_vanish():
    """e^{−t} runs the same path at constant speed by the clock τ = (1 − e^{−t})/(1 − e^{−1}), one for all points."""
    scale = 1 - math.exp(-1)
    pushed = push_forward(
        decay, lambda t, x: ((1 - torch.exp(-t)) / scale, x), inverse=lambda tau, x: (-torch.log1p(-scale * tau), x)
    )
    t, x = times(16), inputs()
    assert float(speed_variance(decay, t, x * torch.exp(-t)[:, None, None])) > 0.01
    assert float(speed_variance(pushed, t, x * (1 - scale * t)[:, None, None])) < 1e-12


def test_it_does_not_see_shapes():
    t = times(64)
    x0 = inputs()

    def turn(t, x):
        return torch.stack([-x[..., 1], x[..., 0]], -1)

    circle = torch.stack([torch.matrix_exp(s * torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double()) @ x0.mT for s in t]).mT
    assert float(speed_variance(turn, t, circle)) < 1e-20
    assert float(speed_variance(*swing())) > 0.01
