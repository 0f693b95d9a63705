"""Theorem 1: the flow map of a field is that of its push-forward, if both ends stay in place."""

import pytest
import torch
from torch import nn
from torchdiffeq import odeint, odeint_adjoint

from gaugefix.errors import DiffeomorphismError, FieldError
from gaugefix.ode import Composition, Ripple, check_ends, push_forward
from tests.ode.fields import ENDS, Net, affine, fixed_steps, flow, inputs, orders, pendulum, relative


def moving_ends(t, x):
    """As good a diffeomorphism, but not the identity at t = 1."""
    return t, x * torch.exp(0.3 * t)


@pytest.mark.parametrize(("moves", "seed"), [("time", 0), ("space", 1), ("both", 2)])
def test_theorem_1(moves, seed):
    ripple, x = Ripple.random(2, 0.5, moves=moves, seed=seed), inputs()
    check_ends(ripple, x)
    pushed = push_forward(pendulum, ripple)
    middle = torch.tensor(0.4, dtype=torch.float64)
    assert relative(pushed(middle, x), pendulum(middle, x)) > 0.05  # another field …
    assert relative(flow(pushed, x, rtol=1e-9), flow(pendulum, x)) < 1e-9  # … with the same flow map


def test_refining_the_solver_converges_to_the_same_flow():
    pushed, x = push_forward(pendulum, Ripple.random(2, 0.5, seed=3)), inputs()
    reference = flow(pendulum, x)
    errors = [relative(fixed_steps(pushed, x, steps), reference) for steps in (8, 16, 32)]
    assert orders(errors) == pytest.approx([4, 4], abs=0.5)


def test_a_diffeomorphism_that_moves_an_end_slice_changes_the_flow_map():
    x = inputs()
    moved, expected = flow(push_forward(pendulum, moving_ends), x), flow(pendulum, x)
    assert relative(moved, expected) > 0.1
    with pytest.raises(DiffeomorphismError, match=r"end slice t = 1 .* moves by .* at t = 1, x = "):
        check_ends(moving_ends, x)
    # It changes by what the ends do, and by nothing else: the flow map becomes ψ₁ ∘ Φ ∘ ψ₀⁻¹.
    assert relative(moved, moving_ends(ENDS[1], expected)[1]) < 1e-9


def test_a_clock_that_ends_elsewhere_changes_the_flow_map():
    x = inputs()
    pushed = push_forward(pendulum, lambda t, x: (t + 0.2 * t**2, x))
    assert relative(flow(pushed, x), flow(pendulum, x)) > 0.05


def test_pushing_twice_is_pushing_by_the_composition():
    a, b = Ripple.random(2, 0.4, seed=4), Ripple.random(2, 0.4, seed=5)
    x, t = inputs(), torch.tensor(0.3).double()
    twice = push_forward(push_forward(pendulum, a), b)(t, x)
    assert relative(push_forward(pendulum, Composition(a, b))(t, x), twice) < 1e-12
    assert relative(push_forward(pendulum, Composition(b, a))(t, x), twice) > 1e-3


def test_the_inverse_takes_a_field_back():
    gauge, x, t = affine(2), inputs(), torch.tensor(0.3).double()
    there = push_forward(pendulum, gauge)
    back = push_forward(there, gauge.inverse, inverse=gauge)
    assert relative(back(t, x), pendulum(t, x)) < 1e-13


def test_newton_finds_what_a_given_inverse_says():
    gauge, x, t = affine(2), inputs(), torch.tensor(0.3).double()
    assert relative(push_forward(pendulum, lambda t, x: gauge(t, x))(t, x), push_forward(pendulum, gauge)(t, x)) < 1e-13


@pytest.mark.parametrize("shape", [(2,), (5, 2), (3, 4, 2)])
def test_states_may_have_any_batch(shape):
    x, t = torch.randn(shape, dtype=torch.float64), torch.tensor(0.3).double()
    pushed = push_forward(pendulum, Ripple.random(2, 0.5, seed=0))
    one_by_one = torch.stack([pushed(t, point) for point in x.reshape(-1, 2)]).reshape(shape)
    assert relative(pushed(t, x), one_by_one) < 1e-13


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-4), (torch.float64, 1e-6)])
@pytest.mark.parametrize("integrate", [odeint, odeint_adjoint])
def test_gradients_through_the_solver(integrate, dtype, limit):
    """A trained field, pushed: outputs and gradients are those of the field itself."""
    x = inputs().to(dtype)

    def gradients(field, net):
        net.zero_grad()
        options = {"step_size": 0.05 if dtype == torch.float64 else 0.2}
        y = integrate(field, x, ENDS.to(dtype), method="rk4", options=options)[-1]
        y.square().sum().backward()
        return torch.cat([p.grad.flatten() for p in net.parameters()]), y

    net = Net().to(dtype)
    pushed = push_forward(net, Ripple.random(2, 0.2, seed=1, dtype=dtype))
    assert len(list(pushed.parameters())) == 4
    (expected, y), (found, moved) = gradients(net, net), gradients(pushed, net)
    assert found.dtype == moved.dtype == dtype
    assert relative(moved, y) < limit
    assert relative(found, expected) < limit


def test_first_derivatives_go_through_newtons_iteration():
    class Stretch(nn.Module):
        def __init__(self):
            super().__init__()
            self.rate = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

        def forward(self, t, x):
            return t + 0.1 * torch.sin(x).sum() * self.rate * t * (1 - t), x + self.rate * t * (1 - t) * torch.sin(x)

    stretch = Stretch()
    pushed = push_forward(pendulum, stretch)

    def evaluate(rate, t, x):
        return torch.func.functional_call(pushed, {"diffeo.rate": rate}, (t, x))

    at = (stretch.rate, torch.tensor(0.4).double().requires_grad_(), inputs(3).requires_grad_())
    assert torch.autograd.gradcheck(evaluate, at, eps=1e-6, atol=1e-6)


def test_a_clock_that_runs_backward_is_refused_with_its_place():
    with pytest.raises(DiffeomorphismError, match=r"D_t tau > 0 .* got -0\.\d+ at t = 1, x = \(2\). .* weaken"):
        push_forward(lambda t, x: 0 * x, lambda t, x: (t + t * (1 - t) * 1.5, x), inverse=lambda t, x: (t, x))(
            torch.tensor(1.0), torch.tensor([2.0])
        )


def test_a_clock_that_depends_on_space_can_run_backward_along_a_fast_field():
    """Here the map is invertible; it is the speed of the field that decides."""
    clock = Ripple.random(2, 0.5, moves="time", seed=0)
    x, t = inputs(), torch.tensor(0.5).double()
    push_forward(pendulum, clock)(t, x)
    with pytest.raises(DiffeomorphismError, match="D_t tau > 0"):
        push_forward(lambda t, x: 1e3 * pendulum(t, x), clock)(t, x)


def test_an_inverse_that_is_none_is_refused():
    with pytest.raises(
        DiffeomorphismError, match=r"diffeo\(inverse\(tau, xi\)\) = \(tau, xi\) for inverse, got .* off"
    ):
        push_forward(pendulum, affine(2), inverse=lambda t, x: (t, x))(torch.tensor(0.5).double(), inputs())


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (lambda t, x: x[..., :1], r"Expected velocities of shape \(2,\) for field at one point, got \(1,\)"),
        (lambda t, x: x.sum(), r"Expected velocities of shape \(2,\) for field at one point, got \(\)"),
    ],
)
def test_fields_that_do_not_fit_are_refused(field, message):
    with pytest.raises(FieldError, match=message):
        push_forward(field, Ripple.random(2, seed=0))(torch.tensor(0.5).double(), inputs())


def test_states_and_times_that_do_not_fit_are_refused():
    pushed = push_forward(pendulum, Ripple.random(2, seed=0))
    with pytest.raises(FieldError, match=r"Expected one time for t, got shape \(2,\)"):
        pushed(ENDS, inputs())
    with pytest.raises(FieldError, match=r"Expected real states of shape \(\.\.\., n\) for x, got torch.int64"):
        pushed(ENDS[0], torch.ones(3, 2, dtype=torch.long))
