import math

import pytest
import torch

from gaugefix.errors import FieldError
from gaugefix.ode import kinetic, push_forward, speed_variance
from tests.ode.fields import Net, affine, inputs, orders
from tests.ode.terms.solutions import decay, solve, swing, times


def test_the_closed_form_at_second_order():
    x, end = inputs(n=3), 2.0
    expected = end * (1 - math.exp(-2 * end)) / 2 * float(x.square().sum(-1).mean())
    errors = []
    for intervals in (16, 32, 64):
        t = times(intervals, end)
        errors.append(abs(float(kinetic(decay, t, x * torch.exp(-t)[:, None, None])) - expected))
    assert orders(errors) == pytest.approx([2, 2], abs=0.05)


def test_it_is_displacement_and_bending_and_pacing():
    field, t, states = swing()
    speed = torch.stack([field(*point) for point in zip(t, states, strict=True)]).norm(dim=-1)
    length = torch.trapezoid(speed, t, dim=0)
    displacement = (states[-1] - states[0]).norm(dim=-1)
    bending, pacing = (length**2 - displacement**2).mean(), speed_variance(field, t, states)
    assert float(bending) > 0.01
    assert float(pacing) > 0.01
    total = displacement.square().mean() + bending + pacing
    assert float(kinetic(field, t, states)) == pytest.approx(float(total), rel=1e-12)


def test_a_gauge_changes_it_but_never_below_the_displacement():
    field, t, states = swing()
    moved = push_forward(field, affine(2))
    states_moved = torch.stack(
        [x @ g[:-1, :-1].mT + g[:-1, -1] for x, g in zip(states, affine(2).frames(t), strict=True)]
    )
    displacement = (states[-1] - states[0]).square().sum(-1).mean()
    plain, other = kinetic(field, t, states), kinetic(moved, t, states_moved)
    assert abs(float(other - plain)) > 0.1 * float(plain)
    assert float(displacement) < min(float(plain), float(other))


def test_the_relative_form_is_blind_to_the_scale_of_the_state():
    field, t, states = swing()

    def scaled(t, x):
        return 0.1 * field(t, 10 * x)

    plain, small = (kinetic(f, t, s, relative=True) for f, s in ((field, states), (scaled, 0.1 * states)))
    assert float(small) == pytest.approx(float(plain), rel=1e-12)
    assert float(kinetic(scaled, t, 0.1 * states)) == pytest.approx(0.01 * float(kinetic(field, t, states)))


def test_straight_paths_at_constant_speed_are_the_minimum():
    t, v = times(8, 3.0), inputs(n=2)
    straight = t[:, None, None] * v
    assert abs(float(kinetic(lambda t, x: v, t, straight, relative=True))) < 1e-12


def test_it_trains_a_field():
    net = Net().double()
    states = solve(net, times(8), inputs())
    kinetic(net, times(8), states).backward()
    assert all(float(p.grad.norm()) > 0 for p in net.parameters())


@pytest.mark.parametrize("term", [kinetic, speed_variance])
def test_what_is_no_trajectory_is_refused(term):
    field, t, states = swing(4)
    with pytest.raises(FieldError, match="two or more rising times"):
        term(field, t.flip(0), states)
    with pytest.raises(FieldError, match=r"Expected shape \(5, \.\.\., n\) for states, got \(4, 6, 2\)"):
        term(field, t, states[1:])
    with pytest.raises(FieldError, match=r"Expected velocities of shape \(6, 2\) for field, got \(6, 1\)"):
        term(lambda t, x: x[..., :1], t, states)
