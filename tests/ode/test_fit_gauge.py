import pytest
import torch

from gaugefix.errors import FieldError
from gaugefix.ode import fit_gauge
from gaugefix.ode.fitted_field import GaugeFit
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


@pytest.mark.parametrize("points", [19, 40])
def test_it_never_gets_worse_on_what_it_is_measured_on(points):
    """Steps this long lead nowhere: no gauge is the best iterate."""
    gauged = fit_gauge(pendulum, inputs(points), "rk4", 4, iterations=2, lr=10.0)
    assert gain(gauged, pendulum, inputs(points), "rk4", 4) == pytest.approx(1, abs=1e-6)
    assert gauged.fit.before == gauged.fit.after
    assert (gauged.fit.gain, gauged.fit.iteration) == (1, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_does_not_overfit_few_inputs(dtype):
    """216 coefficients for 40 inputs of dimension 6."""
    net = Net(6, 16, seed=2).to(dtype).requires_grad_(False)
    x, new = inputs(40, 6).to(dtype), inputs(300, 6, seed=1).to(dtype)
    overfitted = fit_gauge(net, x, "rk4", 4, iterations=100, held_out=0)
    assert gain(overfitted, net, x, "rk4", 4) > 3
    assert gain(overfitted, net, new, "rk4", 4) < 0.8
    assert gain(fit_gauge(net, x, "rk4", 4, iterations=100), net, new, "rk4", 4) > 0.99


def test_an_iterate_before_the_last_is_kept():
    net = Net(6, 16, seed=1).double().requires_grad_(False)
    gauged = fit_gauge(net, inputs(60, 6), "rk4", 4, iterations=150, lr=0.02)
    assert 0 < gauged.fit.iteration < 150
    assert gauged.fit.gain > 1.5
    assert gain(gauged, net, inputs(300, 6, seed=1), "rk4", 4) > 1.3


def test_the_record_says_what_was_measured():
    """On a fifth of the points, which are the same each time; on all of them where they are fewer than 20."""
    x = inputs(25)
    gauged, again = (fit_gauge(pendulum, x, "euler", 4, iterations=23, lr=0.02) for _ in range(2))
    assert (gauged.fit.points, gauged.fit.held_out) == (20, 5)
    assert gauged.fit == again.fit
    assert all(torch.equal(a, b) for a, b in zip(gauged.buffers(), again.buffers(), strict=True))
    rows = torch.randperm(25, generator=torch.Generator().manual_seed(0))[:5]
    for measured, field in ((gauged.fit.before, pendulum), (gauged.fit.after, gauged)):
        missed = fixed_steps(field, x[rows], 4, "euler") - fixed_steps(pendulum, x[rows], 64)
        assert measured == pytest.approx(float(missed.square().mean().sqrt()), rel=1e-9)
    few = fit_gauge(pendulum, x[:19], "euler", 4, iterations=23, lr=0.02).fit
    assert (few.points, few.held_out, few.iteration) == (19, 0, 23)
    missed = fixed_steps(pendulum, x[:19], 4, "euler") - fixed_steps(pendulum, x[:19], 64)
    assert few.before == pytest.approx(float(missed.square().mean().sqrt()), rel=1e-9)


def test_what_is_held_out_is_not_fitted_to():
    rows = torch.randperm(25, generator=torch.Generator().manual_seed(0))[:5]
    x = inputs(25)
    other = x.clone()
    other[rows] += 0.1
    fits = [fit_gauge(pendulum, points, "euler", 4, iterations=5, lr=0.02) for points in (x, other)]
    assert fits[0].fit.iteration == fits[1].fit.iteration == 5
    assert fits[0].fit.after != fits[1].fit.after
    assert torch.equal(fits[0].generators, fits[1].generators)


def test_a_gain_where_no_error_is_left():
    assert GaugeFit(4, 1, 0.0, 0.0, 0).gain == 1
    assert GaugeFit(4, 1, 1.0, 0.0, 5).gain == float("inf")
    still = fit_gauge(lambda t, x: 0 * x, inputs(30), iterations=5)
    assert (still.fit.before, still.fit.gain, still.fit.iteration) == (0, 1, 0)


def test_a_coarse_solver_is_fitted_to_the_flow_and_not_to_itself():
    """Euler's method in many steps would be no reference for what a gauge makes of it in few."""
    field, held_out = linear(2), inputs(100, seed=1)
    gauged, exact = fit_gauge(field, inputs(50), "euler", 8), flow(field, held_out)
    fitted = relative(fixed_steps(gauged, held_out, 8, "euler"), exact)
    assert fitted < 0.2 * relative(fixed_steps(field, held_out, 256, "euler"), exact)


def test_on_a_trained_field():
    """New inputs, equal numbers of evaluations; tests/ode/figures.py has all seeds and families. 300 are fitted to."""
    scalar, _ = fit_gain("spiral", 1, "scalar", points=375)
    linear, gauged = fit_gain("spiral", 1, "linear", points=375)
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
    with pytest.raises(FieldError, match=r"finite states for field in 5 steps of euler, .* Take more steps"):
        fit_gauge(lambda t, x: -30 * x**3, inputs().float(), "euler", 5, refinement=512, waves=1, clock_waves=1)
    with pytest.raises(FieldError, match=r"0 <= held_out < 1, got 1\. 0\.2 keeps a fifth"):
        fit_gauge(pendulum, inputs(), held_out=1)
    with pytest.raises(FieldError, match=r"real inputs \(points, n\) for x0, got torch.int64 of shape \(3, 2\)"):
        fit_gauge(pendulum, torch.ones(3, 2, dtype=torch.int64))
    with pytest.raises(FieldError, match=r"got torch.float32 of shape \(0, 2\)"):
        fit_gauge(pendulum, torch.ones(0, 2))
