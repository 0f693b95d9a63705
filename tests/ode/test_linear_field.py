import pytest
import torch
from torch import nn
from torchdiffeq import odeint, odeint_adjoint

from gaugefix.errors import FieldError
from gaugefix.ode import AffineGauge, LinearField, holonomy, push_forward
from tests.ode.fields import ENDS, affine, flow, inputs, linear, relative

T = torch.tensor(0.37, dtype=torch.float64)


@pytest.mark.parametrize("ends", ["fixed", "free"])
def test_it_is_covariant(ends):
    """The law for (W, b) is the push-forward by x → g(t) x + c(t)."""
    field, gauge, x = linear(), affine(ends=ends), inputs(n=4)
    assert relative(field.transform(gauge)(T, x), push_forward(field, gauge)(T, x)) < 1e-13
    a, moved = field.connection(T), field.transform(gauge).connection(T)
    assert not moved[-1].any()
    homogeneous = gauge.frame(T) @ a @ gauge.frame(T).inverse()
    assert relative(moved, homogeneous) > 0.1  # the connection has more than the tensor's law
    g = AffineGauge(gauge.matrix)
    assert relative(field.transform(g).connection(T)[:-1, -1], g.frame(T)[:-1, :-1] @ a[:-1, -1]) < 1e-13  # matter


def test_gauge_transformations_compose():
    field, first, second = linear(), affine(seed=1), affine(seed=2)
    both = AffineGauge(
        lambda t: second.matrix(t) @ first.matrix(t), lambda t: second.matrix(t) @ first.shift(t) + second.shift(t)
    )
    twice = field.transform(first).transform(second)
    assert relative(field.transform(both).connection(T), twice.connection(T)) < 1e-13


def test_the_flow_map_is_unchanged():
    field, gauge, x = linear(2), affine(2), inputs()
    expected = flow(field, x)
    assert relative(flow(field.transform(gauge), x), expected) < 1e-9
    assert relative(flow(field.transform(affine(2, ends="free")), x), expected) > 0.1


def test_a_shift_can_take_the_place_of_the_bias():
    """Unitary gauge: c with ċ = W c − b, here for W = -1, b = 1, leaves no bias."""
    field = LinearField(lambda t: -torch.eye(1).double(), lambda t: torch.ones(1).double())
    gauge = AffineGauge(lambda t: torch.eye(1).double(), lambda t: torch.exp(-t).reshape(1) - 1)
    assert float(field.transform(gauge).connection(T)[0, 1].abs()) < 1e-15


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("integrate", [odeint, odeint_adjoint])
def test_parameters_train_through_both_solvers(integrate, dtype):
    class Weight(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrices = nn.Parameter(torch.eye(2, dtype=dtype).repeat(2, 1, 1))

        def forward(self, t):
            return self.matrices[0] + t * self.matrices[1]

    plain = LinearField(Weight())
    gauge = AffineGauge(lambda t: torch.eye(2, dtype=dtype) * torch.exp(0.5 * t * (1 - t)))
    x, gradients = inputs().to(dtype), []
    for field in (plain, plain.transform(gauge)):
        assert len(list(field.parameters())) == 1
        plain.zero_grad()
        integrate(field, x, ENDS.to(dtype), method="rk4", options={"step_size": 0.05})[-1].sum().backward()
        gradients.append(plain.weight.matrices.grad.clone())
    assert relative(gradients[1], gradients[0]) < (1e-5 if dtype == torch.float64 else 1e-4)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(FieldError, match=r"shapes \(n, n\) and \(n,\) for matrix and vector .* got \(2, 3\) and None"):
        LinearField(lambda t: torch.ones(2, 3))(T, torch.ones(2))
    with pytest.raises(FieldError, match=r"got \(2, 2\) and \(3,\)"):
        holonomy(LinearField(lambda t: torch.eye(2), lambda t: torch.ones(3)))
