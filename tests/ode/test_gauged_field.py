import copy

import pytest
import torch
from torch.func import vmap
from torchdiffeq import odeint, odeint_adjoint

from gaugefix.errors import FieldError
from gaugefix.ode import AffineGauge, GaugedField, push_forward
from gaugefix.ode.clock import clock
from gaugefix.ode.gauged_field import Frames
from tests.ode.fields import ENDS, Net, fixed_steps, flow, inputs, orders, pendulum, relative

FAMILIES = ["time", "scalar", "diagonal", "linear"]


def drawn(family, field=pendulum, seed=0, scale=0.5, **settings):
    gauged, generator = GaugedField(field, 2, family, **settings), torch.Generator().manual_seed(seed)
    for value in (gauged.pace, gauged.generators, gauged.shifts):
        value.copy_(scale * torch.randn(value.shape, generator=generator, dtype=torch.float64))
    return gauged


@pytest.mark.parametrize("family", FAMILIES)
def test_the_flow_map_is_unchanged(family):
    gauged, x, middle = drawn(family), inputs(), torch.tensor(0.4).double()
    assert relative(gauged(middle, x), pendulum(middle, x)) > 0.1
    assert relative(flow(gauged, x), flow(pendulum, x)) < 1e-9


def test_refining_converges_to_the_same_flow():
    reference = flow(pendulum, inputs())
    errors = [relative(fixed_steps(drawn("linear"), inputs(), n), reference) for n in (32, 64, 128)]
    assert orders(errors) == pytest.approx([4, 4], abs=0.5)


def test_it_is_the_push_forward_by_its_parts():
    gauged, x = drawn("linear"), inputs()

    def waves(s):
        k = torch.arange(1, 4).double()
        return torch.sin(torch.pi * k * s) / k

    affine = AffineGauge(
        lambda s: torch.linalg.matrix_exp(torch.tensordot(waves(s), gauged.generators, 1)),
        lambda s: waves(s) @ gauged.shifts,
    )
    s = torch.tensor(0.3, dtype=torch.float64)

    def timed(s, x):
        tau, rate = clock(gauged.pace, s)
        return rate * pendulum(tau, x)

    assert relative(gauged(s, x), push_forward(timed, affine)(s, x)) < 1e-12
    back = push_forward(timed, lambda s, x: (clock(gauged.pace, s)[0], x))  # the clock leads from s to the field's time
    tau, _ = clock(gauged.pace, s)
    assert relative(back(tau, x), pendulum(tau, x)) < 1e-12


def test_zero_coefficients_are_the_field_itself():
    t, x = torch.tensor(0.4).double(), inputs()
    for family in FAMILIES:
        assert relative(GaugedField(pendulum, 2, family)(t, x), pendulum(t, x)) < 1e-14


def test_any_interval():
    gauged = drawn("linear", interval=(1.0, 3.0))
    times = torch.tensor([1.0, 3.0], dtype=torch.float64)
    plain, moved = (
        odeint(f, inputs(), times, method="rk4", options={"step_size": 0.01})[-1] for f in (pendulum, gauged)
    )
    assert relative(moved, plain) < 1e-6
    assert relative(odeint(gauged, inputs(), times - 0.5, method="rk4", options={"step_size": 0.01})[-1], plain) > 1e-2


def test_any_batch_and_one_point():
    gauged, t = drawn("linear"), torch.tensor(0.4).double()
    x = inputs(12).reshape(3, 4, 2)
    one_by_one = torch.stack([gauged(t, point) for point in x.reshape(-1, 2)]).reshape(x.shape)
    assert relative(gauged(t, x), one_by_one) < 1e-13
    assert relative(vmap(gauged, (None, 0))(t, x[0]), gauged(t, x[0])) < 1e-13


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_keeps_its_order(family, method, order):
    reference, gauged = flow(pendulum, inputs()), drawn(family, scale=0.2)
    errors = [relative(fixed_steps(gauged, inputs(), n, method), reference) for n in (32, 64, 128)]
    assert orders(errors) == pytest.approx([order] * 2, abs=0.35)


@pytest.mark.parametrize("integrate", [odeint, odeint_adjoint])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-6)])
@pytest.mark.parametrize("family", FAMILIES)
def test_adaptive_solvers_find_the_same_flow(family, dtype, limit, integrate):
    net, x = Net().to(dtype), inputs().to(dtype)
    rtol = 1e-6 if dtype == torch.float32 else 1e-8
    settings = {"method": "dopri5", "rtol": rtol, "atol": rtol / 10}
    moved = integrate(drawn(family, net, scale=0.2), x, ENDS.to(dtype), **settings)[-1]
    assert moved.dtype == dtype
    assert relative(moved, flow(net.double(), inputs())) < limit


def test_many_times_at_once_are_one_after_the_other():
    for family in FAMILIES:
        gauged, x = drawn(family), inputs()
        times = torch.linspace(0, 1, 5, dtype=torch.float64)
        frames = gauged.frames(times)
        for i, s in enumerate(times):
            there = gauged.velocity(Frames(*(part[i] for part in frames)), x)
            assert relative(there, gauged(s, x)) < 1e-14


@pytest.mark.parametrize("integrate", [odeint, odeint_adjoint])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_field_within_goes_on_training(integrate, dtype):
    net = Net().to(dtype)
    gauged = drawn("linear", net, scale=0.2)
    y = integrate(gauged, inputs().to(dtype), ENDS.to(dtype), method="rk4", options={"step_size": 0.1})[-1]
    y.sum().backward()
    assert y.dtype == dtype
    assert len(list(gauged.parameters())) == 4
    found = torch.cat([p.grad.flatten() for p in net.parameters()])
    net.zero_grad()
    odeint(net, inputs().to(dtype), ENDS.to(dtype), method="rk4", options={"step_size": 0.1})[-1].sum().backward()
    assert relative(found, torch.cat([p.grad.flatten() for p in net.parameters()])) < 1e-2


def test_it_is_in_checkpoints():
    net = Net().double()
    gauged, t = drawn("linear", net), torch.tensor(0.4).double()
    fresh = GaugedField(copy.deepcopy(net), 2, "linear")
    assert relative(fresh(t, inputs()), gauged(t, inputs())) > 0.1
    fresh.load_state_dict(gauged.state_dict())
    assert torch.equal(fresh(t, inputs()), gauged(t, inputs()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"family": "liner"}, "Expected a family for family, got 'liner'. Did you mean 'linear'"),
        ({"waves": 0}, "Expected n >= 1, waves >= 1, clock_waves >= 1 and t0 < t1 for interval, got 2, 0, 0"),
        ({"interval": (1.0, 1.0)}, r"t0 < t1 for interval, got 2, 3, 3 and \(1.0, 1.0\)"),
        ({"clock_waves": 0}, "got 2, 3, 0 and"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(FieldError, match=message):
        GaugedField(pendulum, 2, **settings)
