import pytest
import torch

from gaugefix.errors import FieldError
from gaugefix.ode import fit_gauge
from tests.ode.fields import Net, fixed_steps, inputs, linear, pendulum, relative


def gain(gauged, field, x, method, steps):
    """How many times smaller the solver's error is with the gauge."""
    reference = fixed_steps(field, x, 256)
    return relative(fixed_steps(field, x, steps, method), reference) / relative(
        fixed_steps(gauged, x, steps, method), reference
    )


@pytest.mark.parametrize(("method", "least"), [("euler", 5.0), ("rk4", 5.0)])
def test_it_lowers_the_error_on_other_points_and_not_the_flow(method, least):
    field, held_out = linear(2), inputs(100, seed=1)
    gauged = fit_gauge(field, inputs(100), method, steps=4, iterations=60)
    assert gain(gauged, field, held_out, method, 4) > least
    assert relative(fixed_steps(gauged, held_out, 128), fixed_steps(field, held_out, 128)) < 1e-6


def test_each_family_contains_the_one_before():
    gains = [
        gain(fit_gauge(pendulum, inputs(100), "euler", 4, family, iterations=50), pendulum, inputs(100), "euler", 4)
        for family in ("time", "linear")
    ]
    assert 1.0 <= gains[0] < gains[1]


def test_it_never_gets_worse_on_what_it_is_fitted_to():
    gauged = fit_gauge(pendulum, inputs(20), "rk4", 4, iterations=2, lr=10.0)
    assert gain(gauged, pendulum, inputs(20), "rk4", 4) > 1 - 1e-6


def test_the_field_is_frozen_and_left_as_it_was():
    net = Net().double()
    before = [p.detach().clone() for p in net.parameters()]
    gauged = fit_gauge(net, inputs(20), "euler", 4, iterations=3, lr=0.003)
    assert all(
        torch.equal(p, q) and p.requires_grad and p.grad is None for p, q in zip(net.parameters(), before, strict=True)
    )
    assert not any(value.requires_grad for value in gauged.buffers())
    assert bool(gauged.generators.any())


def test_wrong_arguments_are_refused():
    with pytest.raises(FieldError, match=r"x0 of shape \(points, n\), steps >= 1, .* got \(2,\), 8, 200 and 8"):
        fit_gauge(pendulum, torch.ones(2))
    with pytest.raises(FieldError, match="Did you mean 'linear'"):
        fit_gauge(pendulum, inputs(), family="liner")
