"""Stacks of fields: integrated segment by segment, and the gauge of their durations."""

import copy

import pytest
import torch
from torch import nn
from torchdiffeq import odeint, odeint_adjoint

from gaugefix.errors import FieldError
from gaugefix.ode import SegmentedField, fix_durations_, rescale_durations_
from tests.ode.fields import Net, inputs, orders, relative

DURATIONS = [0.5, 1.0, 0.3]
FACTORS = [3.0, 0.7, 1.9]


def stack(dtype=torch.float64, **settings):
    return SegmentedField([Net(seed=k).to(dtype) for k in range(3)], DURATIONS, **settings)


def exact(field, x):
    """Each segment on its own, finely."""
    for k in range(len(field.fields)):
        x = odeint(field.segment(k), x, torch.tensor([0.0, 1.0]).to(x), method="rk4", options={"step_size": 1 / 128})[
            -1
        ]
    return x


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_both_ways_to_integrate_have_the_order_of_the_method(method, order):
    field, x = stack(), inputs()
    reference, errors = exact(field, x), []
    ends = field.knots[[0, -1]]
    for steps in (8, 16, 32):
        states = field.integrate(x, method, steps)
        whole = odeint(field, x, ends, method=method, options=field.options(method, steps))[-1]
        assert relative(whole, states[-1]) < 1e-13
        errors.append(relative(whole, reference))
    assert orders(errors) == pytest.approx([order] * 2, abs=0.3)


def test_a_stage_in_the_next_segment_costs_all_order_but_the_first():
    """The trap: rk4 on the same grid, without ``perturb``."""
    field, x = stack(), inputs()
    reference, wrong = exact(field, x), []
    for steps in (8, 16, 32):
        grid = field.options("rk4", steps)["grid_constructor"]
        options = {"grid_constructor": grid}
        wrong.append(relative(odeint(field, x, field.knots[[0, -1]], method="rk4", options=options)[-1], reference))
    right = relative(field.integrate(x, "rk4", 8)[-1], reference)
    assert orders(wrong) == pytest.approx([1, 1], abs=0.2)
    assert wrong[0] > 100 * right


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-7)])
def test_adaptive_solvers(dtype, limit, adjoint):
    field, x, reference = stack(dtype), inputs().to(dtype), exact(stack(), inputs())
    rtol = 1e-6 if dtype == torch.float32 else 1e-9
    settings = {"method": "dopri5", "rtol": rtol, "atol": rtol / 100}
    assert relative(field.integrate(x, adjoint=adjoint, **settings)[-1], reference) < limit
    integrate = odeint_adjoint if adjoint else odeint
    whole = integrate(field, x, field.knots[[0, -1]], options=field.options("dopri5"), **settings)[-1]
    assert whole.dtype == dtype
    assert relative(whole, reference) < limit


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-3), (torch.float64, 1e-4)])
def test_fields_and_durations_train(dtype, limit, adjoint):
    field, x = stack(dtype, trainable=True), inputs().to(dtype)

    def gradients(adjoint, steps):
        field.zero_grad()
        y = field.integrate(x, "rk4", steps, adjoint=adjoint)[-1]
        assert y.dtype == dtype
        y.square().sum().backward()
        return torch.cat([p.grad.flatten() for p in field.parameters()])

    expected = gradients(False, 64)
    assert len(expected) == 3 + 3 * (8 * 4 + 8 * 2 + 2)
    assert float(field.log_durations.grad.abs().min()) > 1e-3
    assert relative(gradients(adjoint, 8), expected) < limit


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_the_gauge_of_durations_is_exact_at_every_number_of_steps(method, dtype):
    field, x = stack(dtype), inputs().to(dtype)
    moved = copy.deepcopy(field)
    rescale_durations_(moved, FACTORS)
    assert torch.allclose(moved.durations, field.durations * torch.tensor(FACTORS).to(dtype))
    assert moved.durations.dtype == dtype
    assert relative(moved.fields[0](torch.tensor(0.3), x), field.fields[0](torch.tensor(0.3), x)) > 0.5
    for steps in (1, 2, 8):
        states = field.integrate(x, method, steps)
        assert relative(moved.integrate(x, method, steps), states) < 8 * torch.finfo(dtype).eps
        whole = odeint(moved, x, moved.knots[[0, -1]].to(x), method=method, options=moved.options(method, steps))[-1]
        assert relative(whole, states[-1]) < 100 * torch.finfo(dtype).eps


@pytest.mark.parametrize("slice", ["equal_durations", "proper_time"])
def test_slices_have_one_point_on_each_orbit(slice):
    x, one, two = inputs(20), stack(), stack()
    total = sum(a * b for a, b in zip(DURATIONS, FACTORS, strict=True)) / sum(DURATIONS)
    rescale_durations_(two, torch.tensor(FACTORS) / total)  # the slices keep the total, so do not change it here
    before = one.integrate(x)
    factors = fix_durations_(one, slice, x)
    fix_durations_(two, slice, x)
    assert float((factors - 1).abs().max()) > 0.1
    assert relative(one.integrate(x), before) < 1e-14
    for p, q in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        assert torch.allclose(p, q, rtol=1e-6)  # the factors above are float32
    assert torch.allclose(fix_durations_(one, slice, x), torch.ones(3).double(), atol=1e-12)
    assert float(one.durations.sum()) == pytest.approx(sum(DURATIONS))


def test_the_slices_are_what_they_say():
    x = inputs(20)
    field = stack()
    fix_durations_(field)
    assert torch.allclose(field.durations, torch.full((3,), 0.6).double())
    fix_durations_(field, "proper_time", x)
    speeds = []
    for k in range(3):
        states = field.integrate(x)[k]
        fine = odeint(field.segment(k), states, torch.linspace(0, 1, 257).double(), method="rk4")
        speeds.append(float((fine.diff(dim=0).flatten(1).square().mean(1).sqrt().sum() / field.durations[k]).detach()))
    assert max(speeds) / min(speeds) < 1 + 1e-4


def test_it_is_in_checkpoints():
    field = stack()
    rescale_durations_(field, FACTORS)
    for settings in ({}, {"trainable": True}):
        fresh = SegmentedField([Net(seed=9).double() for _ in range(3)], **settings)
        fresh.load_state_dict(field.state_dict())
        assert torch.equal(fresh.integrate(inputs()), field.integrate(inputs()))
        assert len(list(fresh.parameters())) == 12 + len(settings)


def test_autonomous_fields_without_modules():
    field = SegmentedField([lambda u, x: x, lambda u, x: u * x], start=2.0)
    assert torch.equal(field.knots, torch.tensor([2.0, 3.0, 4.0]).double())
    assert (
        relative(field.integrate(torch.ones(1, 1).double(), steps=32)[-1, 0], torch.tensor([1.5]).double().exp()) < 1e-6
    )
    with pytest.raises(FieldError, match=r"linear layer at the end of field 0 .* got none"):
        rescale_durations_(field, [1.0, 2.0])


class Normed(Net):
    """No gauge: what comes last is no linear layer."""

    def forward(self, u, x):
        return torch.tanh(super().forward(u, x))


def test_fields_that_do_not_scale_are_refused_and_left_as_they_were():
    field = SegmentedField([Net().double(), Normed().double()])
    before = copy.deepcopy(field.state_dict())
    with pytest.raises(FieldError, match="Expected field 1 to scale with its last linear layer, got a difference of"):
        rescale_durations_(field, [2.0, 3.0])
    with pytest.raises(FieldError, match="Expected field 0 to scale with its last linear layer"):
        rescale_durations_(field, [2.0, 3.0], last="first", probe=inputs())
    with pytest.raises(FieldError, match=r"Expected field 0 to take states of shape \(4, 8\) for probe"):
        rescale_durations_(field, [2.0, 3.0], last="first")
    with pytest.raises(FieldError, match=r"linear layer 'third' of field 0 .* got 'first', 'second'"):
        rescale_durations_(field, [2.0, 3.0], last="third")
    assert all(torch.equal(a, b) for a, b in zip(before.values(), field.state_dict().values(), strict=True))


def test_fields_that_are_used_twice_have_one_factor():
    net = Net().double()
    field, x = SegmentedField([net, net], [1.0, 2.0]), inputs()
    before = field.integrate(x)
    rescale_durations_(field, [3.0, 3.0])
    assert relative(field.integrate(x), before) < 1e-14
    with pytest.raises(FieldError, match="one factor for segments 0 and 1, whose fields share"):
        rescale_durations_(field, [3.0, 2.0])


@pytest.mark.parametrize("durations", [[1.0, 0.0], [1.0], [1.0, float("nan")]])
def test_wrong_durations_are_refused(durations):
    with pytest.raises(FieldError, match="as many positive durations, got 2 and"):
        SegmentedField([Net(), Net()], durations)


def test_wrong_arguments_are_refused():
    with pytest.raises(FieldError, match="at least one field"):
        SegmentedField([])
    with pytest.raises(FieldError, match="Expected steps >= 1 for steps, got 0"):
        stack().integrate(inputs(), steps=0)
    for factors in ([1.0, 2.0], [1.0, 2.0, -1.0]):
        with pytest.raises(FieldError, match="Expected 3 positive numbers for factors"):
            rescale_durations_(stack(), factors)
    with pytest.raises(FieldError, match="Did you mean 'proper_time'"):
        fix_durations_(stack(), "propertime")
    with pytest.raises(FieldError, match=r"got None\. Proper time needs paths"):
        fix_durations_(stack(), "proper_time")
    still = stack()
    nn.init.zeros_(still.fields[1].second.weight)
    nn.init.zeros_(still.fields[1].second.bias)
    with pytest.raises(FieldError, match="no clock where nothing moves: take equal_durations"):
        fix_durations_(still, "proper_time", inputs())
