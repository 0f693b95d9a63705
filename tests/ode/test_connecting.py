"""The converse of Theorem 1: two fields with the same flow map differ by a diffeomorphism."""

import pytest
import torch
from torch.func import vmap

from gaugefix.errors import DiffeomorphismError, FieldError
from gaugefix.ode import Connecting, check_ends, push_forward
from gaugefix.ode.derivative import with_rate
from tests.ode.fields import affine, inputs, linear, orders, pendulum, relative


def moved_pendulum(gauge):
    """The push-forward by x → g(t) x + c(t), written out for one point."""

    def field(t, y):
        frame, rate = with_rate(gauge.frame, t)
        x = torch.linalg.solve(frame[:-1, :-1], y - frame[:-1, -1])
        return rate[:-1, :-1] @ x + rate[:-1, -1] + frame[:-1, :-1] @ pendulum(t, x)

    return field


@pytest.mark.parametrize("case", ["pendulum", "linear"])
def test_it_finds_the_diffeomorphism_that_was_used(case):
    gauge, x = affine(2), inputs()
    field = pendulum if case == "pendulum" else linear(2)
    other = moved_pendulum(gauge) if case == "pendulum" else linear(2).transform(gauge)
    t = torch.full((len(x),), 0.7, dtype=torch.float64)
    _, expected = vmap(gauge)(t, x)
    errors = [relative(vmap(Connecting(field, other, steps=s))(t, x)[1], expected) for s in (8, 16, 32)]
    assert orders(errors) == pytest.approx([4, 4], abs=0.5)
    found = Connecting(field, other, steps=10)
    x, t = x[:3], t[:3]
    check_ends(found, x, tolerance=1e-3)
    pushed = push_forward(field, found)
    assert relative(pushed(t[0], x), vmap(other)(t, x)) < 1e-3
    assert relative(vmap(field)(t, x), vmap(other)(t, x)) > 0.1


def test_between_fields_with_other_flow_maps_it_moves_the_far_end():
    x = inputs()
    psi = Connecting(pendulum, lambda t, x: 1.1 * pendulum(t, x))
    check_ends(psi, x, (0.0, 0.0))
    with pytest.raises(DiffeomorphismError, match="end slice t = 1"):
        check_ends(psi, x, tolerance=1e-3)


def test_it_needs_a_step():
    with pytest.raises(FieldError, match="at least one step for steps, got 0"):
        Connecting(pendulum, pendulum, steps=0)
