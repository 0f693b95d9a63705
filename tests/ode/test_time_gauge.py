"""The gauge of time: grid and warp are one, the slices have one point each, and what they gain on trained fields."""

import math

import pytest
import torch
from torch import nn
from torchdiffeq import odeint, odeint_adjoint

from gaugefix.errors import FieldError
from gaugefix.ode import TimeGauge, equidistribute, final_errors
from tests.ode.fields import ENDS, Net, fixed_steps, flow, inputs, orders, pendulum, relative
from tests.ode.figures import SLICES, geometric_mean, slice_gain
from tests.ode.trained import trained

METHODS = ["euler", "midpoint", "rk4"]


def bend(gauge, power=2.0):
    """Any clock, without a field."""
    gauge.times.copy_(gauge.interval[0] + (gauge.interval[1] - gauge.interval[0]) * torch.linspace(0, 1, 9) ** power)
    gauge.times[1:-1] += 0.03 * torch.sin(torch.arange(1.0, 8.0))
    return gauge


def fast(dtype):
    """A field on which eight steps are far from enough."""
    net = Net(seed=2).to(dtype).requires_grad_(False)
    return lambda t, x: 5 * net(t, x)


def on_grid(gauge, field, x, integrate=odeint, ends=ENDS):
    return integrate(field, x, ends.to(x), method=gauge.method, options=gauge.options)[-1]


def warped(gauge, field, x, integrate=odeint, ends=ENDS):
    moved = gauge.warp(field)
    return integrate(moved, x, ends.to(x), method=gauge.method, options=moved.options(gauge.method))[-1]


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 3e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("method", METHODS)
def test_grid_and_warp_are_the_same_sums(method, dtype, limit):
    gauge, x, field = bend(TimeGauge(method=method)), inputs().to(dtype), fast(dtype)
    moved = warped(gauge, field, x)
    assert moved.dtype == dtype
    assert relative(moved, on_grid(gauge, field, x)) < limit
    assert relative(moved, fixed_steps(field, x, 8, method)) > 100 * limit


def test_a_stage_on_the_wrong_side_of_a_knot_is_much_worse():
    """Why the options: without them the last stage of rk4 has the rate of the next segment."""
    gauge, x, reference = bend(TimeGauge()), inputs(), flow(pendulum, inputs())
    right = relative(warped(gauge, pendulum, x), reference)
    wrong = relative(odeint(gauge.warp(pendulum), x, gauge.knots, method="rk4")[-1], reference)
    assert right < 1e-4
    assert wrong > 100 * right


@pytest.mark.parametrize("integrate", [odeint, odeint_adjoint])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("use", [on_grid, warped])
def test_fields_train_through_it(use, dtype, integrate):
    net, gauge = Net().to(dtype), bend(TimeGauge())

    def gradients(answer):
        net.zero_grad()
        answer.square().sum().backward()
        return torch.cat([p.grad.flatten() for p in net.parameters()])

    found = gradients(use(gauge, net, inputs().to(dtype), integrate))
    assert found.dtype == dtype
    assert relative(found, gradients(fixed_steps(net, inputs().to(dtype), 64))) < 1e-3


@pytest.mark.parametrize("integrate", [odeint, odeint_adjoint])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-7)])
def test_adaptive_solvers_find_the_same_flow(dtype, limit, integrate):
    moved, x = bend(TimeGauge()).warp(Net().to(dtype)), inputs().to(dtype)
    rtol = 1e-6 if dtype == torch.float32 else 1e-9
    settings = {"method": "dopri5", "rtol": rtol, "atol": rtol / 100, "options": moved.options("dopri5")}
    found = integrate(moved, x, ENDS.to(dtype), **settings)[-1]
    assert found.dtype == dtype
    assert relative(found, flow(Net().double(), inputs())) < limit


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_refining_converges_to_the_flow_of_the_field(method, order):
    reference, errors = flow(pendulum, inputs()), []
    for steps in (16, 32, 64):
        gauge = TimeGauge("equidistribution", method, steps).fit_(pendulum, inputs())
        errors.append(relative(on_grid(gauge, pendulum, inputs()), reference))
    assert orders(errors) == pytest.approx([order] * 2, abs=0.4)


def test_the_grid_goes_through_all_times_asked_for_in_both_directions():
    gauge = bend(TimeGauge())
    times = torch.tensor([0.1, 0.25, float(gauge.times[5]) + 1e-16, 0.9], dtype=torch.float64)
    grid = gauge.grid_constructor(None, None, times)
    assert torch.equal(grid[[0, -1]], times[[0, -1]])
    assert bool((grid.diff() > 1e-3).all())
    assert len(grid) == 2 + 1 + int(((gauge.times > 0.1) & (gauge.times < 0.9)).sum())
    assert torch.equal(gauge.grid_constructor(None, None, times.flip(0)), grid.flip(0))
    states = odeint(pendulum, inputs(), torch.tensor([0.0, 0.5, 1.0]).double(), method="rk4", options=gauge.options)
    halves = TimeGauge(steps=2)
    assert relative(states[1], on_grid(halves, pendulum, inputs(), ends=torch.tensor([0.0, 0.5]).double())) < 1e-2
    assert relative(states[2], flow(pendulum, inputs())) < 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_every_step_adds_the_same_to_the_final_error(method):
    gauge = TimeGauge("equidistribution", method, 6, (0.0, 2.0)).fit_(pendulum, inputs())
    errors = final_errors(pendulum, inputs(), gauge.times, method)
    assert float(errors.max() / errors.min()) < 1.0011
    plain = final_errors(pendulum, inputs(), gauge.knots, method)
    assert float(plain.max() / plain.min()) > 1.3


def test_final_errors_add_up_to_the_error():
    """To first order, and for one step of a linear field exactly: e^{A(1 - t)} times what the step misses."""
    a = torch.tensor([[0.0, 2.0], [-2.0, -0.5]], dtype=torch.float64)
    times = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    found = final_errors(lambda t, x: x @ a.mT, inputs(), times, "euler", substeps=64)
    exact, eye = torch.linalg.matrix_exp, torch.eye(2).double()
    first = exact(0.7 * a) @ (eye + 0.3 * a - exact(0.3 * a))
    second = (eye + 0.7 * a - exact(0.7 * a)) @ exact(0.3 * a)
    expected = torch.stack([(inputs() @ m.mT).square().mean().sqrt() for m in (first, second)])
    assert torch.allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("slice", ["equidistribution", "proper_time"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_there_is_one_clock_on_the_slice(slice, dtype):
    """Idempotent, and the same from wherever it starts."""
    net, x = fast(dtype), inputs(20).to(dtype)
    gauge = TimeGauge(slice).fit_(net, x)
    times = gauge.times.clone()
    assert float((times - gauge.knots).abs().max()) > 0.01
    assert torch.equal(gauge.fit_(net, x).times, times)
    for power in (0.5, 3.0):
        assert torch.allclose(bend(TimeGauge(slice), power).fit_(net, x).times, times, atol=2e-3)


def test_proper_time_does_not_depend_on_the_clock_that_the_field_came_with():
    """Equidistribution does: it is a condition on the field and its solver, whose error is not covariant."""

    def other(t, x):  # the pendulum by the clock τ = t + 0.1 sin(2πt)
        return (1 + 0.2 * math.pi * torch.cos(2 * math.pi * t)) * pendulum(t + 0.1 * torch.sin(2 * math.pi * t), x)

    one, two = (TimeGauge("proper_time").fit_(field, inputs()).times for field in (pendulum, other))
    assert float((two - one).abs().max()) > 0.05
    assert float((two + 0.1 * torch.sin(2 * math.pi * two) - one).abs().max()) < 1e-3


def test_proper_time_is_constant_speed():
    gauge = TimeGauge("proper_time", steps=16).fit_(pendulum, inputs())
    moved = gauge.warp(pendulum)
    x, speeds = inputs(), []
    for start, end in zip(gauge.knots[:-1], gauge.knots[1:], strict=True):
        middle = (start + end) / 2
        x = odeint(moved, x, torch.stack([start, middle]), method="rk4")[-1]
        speeds.append(float(moved(middle, x).square().mean().sqrt()))
        x = odeint(moved, x, torch.stack([middle, end - 1e-9]), method="rk4")[-1]
    assert max(speeds) / min(speeds) < 1.01


def test_on_trained_fields():
    """At equal numbers of evaluations, on inputs that were not fitted to; tests/ode/figures.py has the whole table."""
    assert min(trained("spiral", seed)[3] for seed in (0, 1)) > 0.95
    gains = {slice: [slice_gain("spiral", seed, slice) for seed in (0, 1)] for slice in SLICES}
    assert geometric_mean(gains["equidistribution"]) > 2
    assert max(gains["proper_time"]) < 1  # a coordinate, not a gain


def test_it_is_in_checkpoints():
    net = Net().double()
    gauge = TimeGauge().fit_(net, inputs())
    fresh = TimeGauge()
    fresh.load_state_dict(gauge.state_dict())
    assert torch.equal(fresh.times, gauge.times)
    moved = gauge.warp(net)
    empty = TimeGauge().warp(Net(seed=1).double())
    empty.load_state_dict(moved.state_dict())
    assert torch.equal(warped(empty.clock, empty.field, inputs()), warped(gauge, net, inputs()))
    assert gauge.float().times.dtype == torch.float32
    assert relative(on_grid(gauge, net, inputs()), on_grid(fresh, net, inputs())) < 1e-6


def test_states_may_have_any_shape():
    conv = nn.Conv2d(2, 2, 3, padding=1)
    x = torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(0))

    def field(t, x):
        return torch.tanh(conv(x)) * (1 + 3 * t)

    times = equidistribute(field, x, "midpoint", 4)
    assert not times.requires_grad
    assert all(p.grad is None for p in conv.parameters())
    errors = final_errors(field, x, times, "midpoint")
    assert float(errors.max() / errors.min()) < 1.01


def test_a_field_that_does_nothing_leaves_equal_steps():
    for slice in ("equidistribution", "proper_time"):
        gauge = TimeGauge(slice, steps=4).fit_(lambda t, x: 0 * x, inputs())
        assert torch.allclose(gauge.times, gauge.knots, atol=1e-12)
    assert torch.equal(TimeGauge(steps=1).fit_(pendulum, inputs()).times, ENDS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"slice": "propertime"}, "Expected a slice of time for slice, got 'propertime'. Did you mean 'proper_time'"),
        ({"method": "dopri5"}, "fixed-step method for method, got 'dopri5'.* Adaptive methods .* gain nothing"),
        ({"method": "rk5"}, "got 'rk5'. Did you mean 'rk4'"),
        ({"steps": 0}, r"Expected steps >= 1 and t0 < t1 for interval, got 0 and \(0, 1\)"),
        ({"interval": (1.0, 0.0)}, r"got 8 and \(1, 0\)"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(FieldError, match=message):
        TimeGauge(**settings)


def test_fields_that_blow_up_are_refused():
    with pytest.raises(FieldError, match="Expected finite errors for field on 8 steps of rk4"):
        TimeGauge().fit_(lambda t, x: 1e3 * x**3, inputs())
    with pytest.raises(FieldError, match="Expected finite speeds for field"):
        TimeGauge("proper_time").fit_(lambda t, x: 1e3 * x**3, inputs())
    with pytest.raises(FieldError, match="Expected real inputs"):
        TimeGauge().fit_(pendulum, torch.ones(3, 2, dtype=torch.long))
