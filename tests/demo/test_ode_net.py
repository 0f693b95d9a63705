"""The network of the neural ODE recipe, its solver error and its picture."""

import math

import pytest
import torch
import torchdiffeq

from gaugefix.demo.ode_net import OdeNet
from gaugefix.demo.solver_error import flow_through, solver_error
from gaugefix.demo.trajectories import draw_trajectories, principal_axes
from gaugefix.errors import FieldError

U = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def made(**settings) -> OdeNet:
    torch.manual_seed(0)
    net = OdeNet(3, 2, **{"dimension": 5, "hidden": 8, **settings}).double()
    with torch.no_grad():
        net.field.outer.weight.mul_(4)  # a flow that bends
    return net


def gradients(net: OdeNet) -> list[torch.Tensor]:
    return list(torch.autograd.grad(net(U).square().sum(), tuple(net.parameters())))


@pytest.mark.parametrize("horizon", [None, 4])
@pytest.mark.parametrize(("solver", "near"), [("euler", 2e-2), ("midpoint", 1e-3), ("rk4", 1e-6), ("dopri5", 1e-6)])
def test_outputs_are_read_off_the_flow(solver, near, horizon):
    net = made(solver=solver, steps=400 if solver == "euler" else 64, horizon=horizon, rtol=1e-9, atol=1e-11)
    outputs = net(U)
    times = [1.0] if horizon is None else [k / horizon for k in range(1, horizon + 1)]
    for k, t in enumerate(times):
        ends = torch.tensor([0.0, t], dtype=torch.float64)
        exact = net.decoder(torchdiffeq.odeint(net.field, net.encoder(U), ends, rtol=1e-11, atol=1e-12)[-1])
        assert torch.allclose(outputs if horizon is None else outputs[:, k], exact, rtol=near, atol=near)
    assert outputs.shape == ((7, 2) if horizon is None else (7, horizon, 2))


@pytest.mark.parametrize("settings", [{"solver": "rk4", "steps": 32}, {"solver": "dopri5", "rtol": 1e-8, "atol": 1e-9}])
@pytest.mark.parametrize("horizon", [None, 4])
def test_adjoint_has_the_same_outputs_and_gradients(settings, horizon):
    direct, adjoint = (made(horizon=horizon, adjoint=adjoint, **settings) for adjoint in (False, True))
    assert torch.equal(direct(U), adjoint(U))
    for a, b in zip(gradients(direct), gradients(adjoint), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def test_evaluations_are_counted_forward_and_backward():
    net = made(steps=6)
    net(U)
    assert net.field.evaluations == 6 * 4
    net = made(steps=6, adjoint=True)
    loss = net(U).sum()
    loss.backward()
    assert net.field.evaluations == 2 * 6 * 4


def test_solver_error_falls_at_the_order_of_the_solver():
    for solver, order in (("euler", 1), ("midpoint", 2), ("rk4", 4)):
        errors = [solver_error(made(solver=solver, steps=steps), U) for steps in (16, 32)]
        assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.25)


@torch.no_grad()
def test_solver_error_of_one_euler_step_is_that_of_a_straight_line():
    net = made(solver="euler", steps=1, autonomous=True)
    x = net.encoder(U)
    end = flow_through(net, x, net.times)[-1]
    straight = x + net.field(torch.tensor(0.0), x)
    assert solver_error(net, U) == pytest.approx(float((straight - end).norm() / end.norm()))


def test_a_field_that_has_diverged_has_no_solver_error():
    for value in (torch.nan, -1e6):  # the second is too stiff
        net = made()
        with torch.no_grad():
            net.field.outer.weight.fill_(value)
            net.field.inner.weight.fill_(1)
        assert math.isnan(solver_error(net, U))


def test_a_clock_moves_the_steps_and_survives_a_checkpoint():
    net, other = made(steps=4), made(steps=4)
    knots = torch.tensor([0.0, 0.1, 0.3, 0.6, 1.0])
    net.set_clock(knots)
    assert torch.allclose(net.grid.float(), knots)
    assert not torch.equal(net(U), other(U))
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(U), other(U))


def test_time_is_seen_unless_the_field_is_autonomous():
    x = torch.ones(2, 5, dtype=torch.float64)
    for autonomous in (False, True):
        early, late = (made(autonomous=autonomous).field(torch.tensor(t), x) for t in (0.1, 0.9))
        assert torch.equal(early, late) == autonomous


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solver": "rk5"}, r"for solver, got 'rk5'\. Did you mean 'rk4'\?"),
        ({"steps": 3, "horizon": 4}, "one step from output to output for steps, got 3 for 4"),
        ({"hidden": 0}, "positive numbers for inputs"),
        ({"horizon": 0}, "positive numbers for inputs"),
        ({"rtol": 0.0}, "positive numbers for inputs"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(FieldError, match=message):
        made(**settings)


def test_inputs_of_another_size_are_refused():
    with pytest.raises(FieldError, match=r"Expected inputs of shape \(batch, 3\) for the model, got \(7, 2\)"):
        made()(U[:, :2])


def test_principal_axes_are_those_of_the_states():
    turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    states = torch.randn(3, 400, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    states = states * torch.tensor([0.01, 3, 0.01, 2, 0.01]) @ turn + 7
    axes, centre, shares = principal_axes(states)
    expected = turn[[1, 3]].T
    assert torch.allclose((axes.T @ expected).abs(), torch.eye(2, dtype=torch.float64), atol=0.05)
    assert torch.allclose(centre, states.flatten(0, 1).mean(0))
    assert shares == pytest.approx([9 / 13, 4 / 13], abs=0.03)


@pytest.mark.parametrize(("dimension", "labels"), [(1, None), (2, torch.arange(7) % 2), (5, torch.arange(7))])
def test_trajectories_are_drawn(dimension, labels, tmp_path):
    path = draw_trajectories(made(dimension=dimension), U, labels, tmp_path / "t.png", "seven points")
    assert path.read_bytes().startswith(b"\x89PNG")
