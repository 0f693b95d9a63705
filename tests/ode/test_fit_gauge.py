import pytest
import torch

from gaugefix.errors import FieldError
from gaugefix.ode import fit_gauge
from tests.ode.fields import Net, fixed_steps, flow, inputs, linear, orders, pendulum, relative
from tests.ode.figures import SEEDS, fit_gain, geometric_mean
from tests.ode.trained import trained


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


def test_a_coarse_solver_is_fitted_to_the_flow_and_not_to_itself():
    """Euler's method in many steps would be no reference for what a gauge makes of it in few."""
    field, held_out = linear(2), inputs(100, seed=1)
    gauged, exact = fit_gauge(field, inputs(50), "euler", 8), flow(field, held_out)
    fitted = relative(fixed_steps(gauged, held_out, 8, "euler"), exact)
    assert fitted < 0.2 * relative(fixed_steps(field, held_out, 256, "euler"), exact)


def test_on_a_trained_field():
    """Held-out inputs, equal numbers of evaluations; tests/ode/figures.py has all seeds and families."""
    scalar, _ = fit_gain("spiral", 1, "scalar", points=300)
    linear, gauged = fit_gain("spiral", 1, "linear", points=300)
    assert linear > 10
    assert linear > 2 * scalar
    field, _, held_out, _ = trained("spiral", 1)
    exact = flow(field, held_out)
    errors = [relative(fixed_steps(gauged, held_out, n), exact) for n in (64, 128, 256)]
    assert orders(errors) == pytest.approx([4, 4], abs=0.5)  # refined, it is the flow of the field


@pytest.mark.slow
def test_on_all_trained_fields():
    for task, least in (("spiral", 10), ("digits", 5)):
        assert geometric_mean([fit_gain(task, seed, "linear")[0] for seed in SEEDS]) > least


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["euler", "midpoint"])
def test_every_dtype_and_method(method, dtype):
    net = Net(seed=2).to(dtype).requires_grad_(False)
    gauged = fit_gauge(net, inputs(40).to(dtype), method, 4, "linear", iterations=80)
    assert gauged.generators.dtype == dtype
    assert gain(gauged, net, inputs(40, seed=1).to(dtype), method, 4) > 2


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
    with pytest.raises(FieldError, match=r"x0 of shape \(points, n\), steps >= 1, .* got \(2,\), 8, 500 and 8"):
        fit_gauge(pendulum, torch.ones(2))
    with pytest.raises(FieldError, match="Did you mean 'linear'"):
        fit_gauge(pendulum, inputs(), family="liner")
    with pytest.raises(FieldError, match="fixed-step method for method, got 'dopri5'"):
        fit_gauge(pendulum, inputs(), "dopri5")
    with pytest.raises(FieldError, match="Expected a finite flow for field"):
        fit_gauge(lambda t, x: 1e3 * x**3, inputs())
