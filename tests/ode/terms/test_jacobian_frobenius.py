import pytest
import torch
from torch.func import jacrev, vmap

from gaugefix.errors import FieldError
from gaugefix.ode import LandauField, holonomy, integrate, jacobian_frobenius, landau_gauge
from tests.ode.fields import Net, affine, linear
from tests.ode.terms.solutions import swing, times


def exact(field, t, states):
    jacobians = torch.stack(
        [vmap(jacrev(lambda x, s=s: field(s, x)))(points) for s, points in zip(t, states, strict=True)]
    )
    return torch.trapezoid(jacobians.square().sum((-1, -2)).mean(-1), t)


def test_unit_vectors_give_the_norm():
    net, (_, t, states) = Net().double().requires_grad_(False), swing(8)
    assert float(jacobian_frobenius(net, t, states, samples=None)) == pytest.approx(float(exact(net, t, states)))


def test_the_estimate_has_no_bias():
    net, (_, t, states) = Net().double().requires_grad_(False), swing(4)
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([jacobian_frobenius(net, t, states, generator=generator) for _ in range(200)]).detach()
    assert float(draws.std()) > 0
    error = float((draws.mean() - exact(net, t, states)).abs())
    assert error < 4 * float(draws.std()) / 200**0.5
    assert float(draws.std()) / 200**0.5 < 0.03 * float(draws.mean())


def test_more_samples_vary_less():
    net, (_, t, states) = Net().double().requires_grad_(False), swing(4)
    generator = torch.Generator().manual_seed(0)
    few, many = (
        torch.stack([jacobian_frobenius(net, t, states, samples=s, generator=generator) for _ in range(60)]).var()
        for s in (1, 8)
    )
    assert float(many) < float(few) / 4


def test_for_a_linear_field_it_is_the_norm_that_landau_gauge_lowers():
    field, t = linear(bias=False), times(64)
    states = torch.zeros(65, 1, 4, dtype=torch.float64)
    weights = vmap(field.weight)(t).square().sum((1, 2))
    norm = jacobian_frobenius(field, t, states, samples=None)
    assert float(norm) == pytest.approx(float(torch.trapezoid(weights, t)), rel=1e-12)
    lowest = jacobian_frobenius(LandauField(holonomy(field)[:-1, :-1]), t, states, samples=None)
    assert float(lowest) < 0.8 * float(norm)
    assert float(lowest) == pytest.approx(float(landau_gauge(integrate(field, t)).lattice.action()), rel=0.05)
    assert float(jacobian_frobenius(field.transform(affine(scale=0.1)), t, states, samples=None)) > float(lowest)


def test_it_trains_a_field():
    net, (_, t, states) = Net().double(), swing(4)
    jacobian_frobenius(net, t, states).backward()
    assert float(net.first.weight.grad.norm()) > 0
    assert float(net.second.weight.grad.norm()) > 0


def test_wrong_arguments_are_refused():
    field, t, states = swing(4)
    with pytest.raises(FieldError, match="at least one sample for samples, got 0"):
        jacobian_frobenius(field, t, states, samples=0)
    with pytest.raises(FieldError, match=r"Expected velocities of shape \(6, 2\) for field, got \(6, 1\)"):
        jacobian_frobenius(lambda t, x: x[..., :1], t, states)
    with pytest.raises(FieldError, match="rising times"):
        jacobian_frobenius(field, t.flip(0), states)
