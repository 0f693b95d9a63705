"""Theorem 2: rescaling the layers of a ReLU network is the diffeomorphism x′ = Λ(t) x of its continuum limit."""

import math

import pytest
import torch

from gaugefix.ode import AffineGauge, ReluField, Rescaling, integrate, push_forward, sample
from tests.ode.fields import fixed_steps, flow, inputs, linear, orders, relative

RATES = torch.tensor([1.0, -0.7, 0.5, 0.2], dtype=torch.float64)
DEPTHS = (32, 64, 128)


def scaling(power=1.0):
    """Trivial at both ends."""
    return Rescaling(lambda t: power * torch.sin(math.pi * t) * RATES * (1 + t))


def times(layers):
    return torch.linspace(0, 1, layers + 1, dtype=torch.float64)


def network(lattice, x):
    """x_{l+1} = σ(U_l x_l + β_l)."""
    for weight, bias in zip(lattice.weights, lattice.biases, strict=True):
        x = torch.relu(x @ weight.mT + bias)
    return x


def residual_network(field, x, layers, skips=None):
    """x_{l+1} = s_l x_l + h σ(W_l x_l + b_l)."""
    for i, t in enumerate(times(layers)[:-1]):
        skip = 1 if skips is None else skips[i]
        x = skip * x + torch.relu(x @ field.weight(t).mT + field.bias(t)) / layers
    return x


def residual_field(seed=0):
    field = linear(seed=seed)
    return ReluField(field.weight, field.bias)


@pytest.mark.parametrize("layers", [1, 2, 8, 32])
def test_integrated_layers_of_the_diffeomorphism_are_the_rescaled_layers(layers):
    """The two sides of Theorem 2, for each number of layers, weights and outputs of the ReLU network alike."""
    x = inputs(n=4).abs()
    substeps = max(8, 256 // layers)
    rescaled = integrate(linear(), times(layers), substeps).transform(scaling().frames(times(layers)))
    moved = integrate(linear().transform(scaling()), times(layers), substeps)
    assert relative(moved.links, rescaled.links) < 1e-10
    assert relative(network(moved, x), network(integrate(linear(), times(layers), substeps), x)) < 1e-10


def test_the_network_is_not_linear_and_the_diffeomorphism_not_small():
    """What the test above would otherwise not say."""
    x, lattice = inputs(n=4).abs(), integrate(linear(), times(32))
    u = lattice.holonomy()
    assert relative(network(lattice, x), x @ u[:-1, :-1].mT + u[:-1, -1]) > 0.1
    assert relative(lattice.transform(scaling().frames(times(32))).links, lattice.links) > 0.05


@pytest.mark.parametrize(("rule", "order"), [("euler", 1), ("midpoint", 2)])
def test_sampled_layers_agree_to_an_order_only(rule, order):
    """Negative control: a layer that is a value of the field and not its integral."""
    x = inputs(n=4).abs()
    links, outputs = [], []
    for layers in DEPTHS:
        plain = sample(linear(), times(layers), rule)
        moved = sample(linear().transform(scaling()), times(layers), rule)
        rescaled = plain.transform(scaling().frames(times(layers)))
        links.append(float((moved.links - rescaled.links).norm(dim=(1, 2)).sum()))
        outputs.append(relative(network(moved, x), network(plain, x)))
    assert min(links) > 1e-4
    assert min(outputs) > 1e-5
    assert orders(links) == pytest.approx([order] * 2, abs=0.1)
    assert orders(outputs) == pytest.approx([order] * 2, abs=0.3)


def test_a_scale_of_the_wrong_sign_does_not_pass_a_relu():
    """Negative control: the same formula for diagonal g that are not positive, or not diagonal."""
    x, lattice = inputs(n=4).abs(), integrate(linear(), times(8))
    signs = torch.diag(torch.tensor([1.0, -1.0, 1.0, 1.0]).double())
    turn = torch.linalg.matrix_exp(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double())
    for matrix in (signs, turn):
        frames = AffineGauge(lambda t, m=matrix: m + 0 * t).frames(lattice.times)
        frames[[0, -1]] = torch.eye(5).double()
        moved = lattice.transform(frames)
        assert relative(moved.holonomy(), lattice.holonomy()) < 1e-12
        assert relative(network(moved, x), network(lattice, x)) > 0.1


def test_the_relu_field_is_closed_under_rescaling():
    field, x, t = residual_field(), inputs(n=4), torch.tensor(0.3).double()
    moved = field.rescale(scaling())
    assert relative(moved(t, x), push_forward(field, scaling())(t, x)) < 1e-13
    assert relative(moved(t, x), field(t, x)) > 0.1
    twice = moved.rescale(scaling(0.5))
    assert relative(twice(t, x), field.rescale(scaling(1.5))(t, x)) < 1e-13


def test_the_flow_of_the_relu_field_is_unchanged():
    field, x = residual_field(), inputs(n=4)
    reference = flow(field, x, rtol=1e-7)
    assert relative(flow(field.rescale(scaling()), x, rtol=1e-7), reference) < 1e-6  # velocities have kinks
    wrong = ReluField(field.rescale(scaling()).weight, field.rescale(scaling()).bias)  # without Λ̇Λ⁻¹
    assert relative(flow(wrong, x, rtol=1e-7), reference) > 0.1


def test_residual_networks_need_the_skip_rescaled():
    field, x, moved = residual_field(), inputs(n=4), residual_field().rescale(scaling())
    exact, plain = [], []
    for layers in DEPTHS:
        expected = residual_network(field, x, layers)
        scales = scaling().log_scale(times(layers)[:, None]).exp()
        ratio = scales[1:] / scales[:-1]
        # λ_{l+1} σ(W_l x) = σ(λ_{l+1} W_l λ_l⁻¹ x′): the branch takes the scale of its own output
        branch = ReluField(
            lambda t, r=ratio, n=layers: r[round(float(t) * n)][:, None] * moved.weight(t),
            lambda t, r=ratio, n=layers: r[round(float(t) * n)] * moved.bias(t),
        )
        exact.append(relative(residual_network(branch, x, layers, skips=ratio), expected))
        plain.append(relative(fixed_steps(moved, x, layers, method="euler"), expected))
    assert max(exact) < 1e-12
    assert min(plain) > 1e-3
    assert orders(plain) == pytest.approx([1, 1], abs=0.15)


def test_residual_networks_have_constant_scales_exactly():
    field, x = residual_field(), inputs(n=4)
    constant = Rescaling(lambda t: RATES + 0 * t)
    scale = RATES.exp()
    moved = residual_network(field.rescale(constant), x * scale, 16) / scale
    assert relative(moved, residual_network(field, x, 16)) < 1e-13
