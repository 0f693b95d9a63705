"""The minimal-norm slice for scalings: stationarity, minimality against a peer, idempotence, uniqueness."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from gaugefix import act_, discover, drift, project_
from gaugefix.slices import MinimalNorm
from gaugefix.symmetry import Element
from tests.slices.small_nets import SCALED, build, declared, mlp, parameters, relative, scalings

TIGHT = MinimalNorm(tolerance=1e-10)
over_nets = pytest.mark.parametrize("name", SCALED)


def squared_norm(net, gauge, u=None):
    """Σ‖P‖² over what the scalings move, at log-scales u (one flat vector), through the action alone."""
    tensors = gauge.check(net)
    tensors = {name: tensors[name].detach() for s in scalings(gauge) for name in s.parameters}
    counted = {leg.parameter for s in scalings(gauge) for leg in s.legs if not leg.buffer}
    if u is not None:
        for s, part in zip(scalings(gauge), u.split([s.group.coordinates for s in scalings(gauge)]), strict=True):
            tensors.update(s.act(tensors, part.exp()))
    return torch.stack([tensors[name].square().sum() for name in sorted(counted)]).sum()


def imbalance(net, gauge):
    """max |in − out| / (in + out) over units, from the derivatives of the norm along every log-scale."""
    u = torch.zeros(sum(s.group.coordinates for s in scalings(gauge)), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(squared_norm(net, gauge, u), u, create_graph=False)
    size = torch.zeros_like(slope)
    start = 0
    for s in scalings(gauge):
        for leg in s.legs:
            if not leg.buffer:
                squares = gauge.check(net)[leg.parameter].detach().square() * torch.from_numpy(np.array(leg.index >= 0))
                index = torch.from_numpy(leg.index.copy()).expand(squares.shape)
                size.index_add_(0, start + index.clamp_min(0).reshape(-1), abs(leg.power) * squares.reshape(-1))
        start += s.group.coordinates
    return float((slope.abs() / (2 * size).clamp_min(1e-300)).max())


def log_norm(element):
    return max((float(value.log().abs().max()) for _, value in element.steps), default=0.0)


@over_nets
def test_every_unit_is_balanced(name):
    net, gauge, _ = build(name)
    assert imbalance(net, gauge) > 0.1
    project_(net, gauge, TIGHT)
    assert imbalance(net, gauge) < 1e-8


def test_hidden_layers_are_balanced_by_hand_the_last_one_included():
    net, gauge, _ = build("mlp")
    project_(net, gauge, TIGHT)
    layers = [module for module in net if isinstance(module, torch.nn.Linear)]
    for layer, after in pairwise(layers):
        incoming = layer.weight.square().sum(1) + layer.bias.square()
        torch.testing.assert_close(incoming, after.weight.square().sum(0), rtol=1e-8, atol=0)


def test_a_power_counts_in_the_balance():
    """relu(v)²: ∂Φ/∂u = in − 2·out, not in − out."""
    net, gauge, _ = build("squared")
    project_(net, gauge, TIGHT)
    incoming = net.v.weight.square().sum(1) + net.v.bias.square()
    torch.testing.assert_close(incoming, 2 * net.d.weight.square().sum(0), rtol=1e-8, atol=0)


@over_nets
def test_the_norm_is_the_smallest_on_the_orbit(name):
    net, gauge, _ = build(name)
    project_(net, gauge, TIGHT)
    least = float(squared_norm(net, gauge))
    generator = torch.Generator().manual_seed(0)
    n = sum(s.group.coordinates for s in scalings(gauge))
    for k in range(200):
        u = 10.0 ** (-3 + k % 4) * torch.randn(n, generator=generator, dtype=torch.float64)
        assert least <= float(squared_norm(net, gauge, u)) * (1 + 1e-13)


@over_nets
def test_a_general_minimiser_agrees(name):
    net, gauge, _ = build(name)
    gauge = gauge.select(lambda s: s in scalings(gauge))
    n = gauge.dimension

    def value(u):
        return squared_norm(net, gauge, u).log()

    def slope(x):
        u = torch.tensor(x, requires_grad=True)
        return torch.autograd.grad(value(u), u)[0].numpy()

    def curvature(x):
        return torch.autograd.functional.hessian(value, torch.tensor(x)).numpy()

    found = optimize.minimize(
        lambda x: float(value(torch.tensor(x))), np.zeros(n), jac=slope, hess=curvature, method="trust-exact",
        options={"gtol": 1e-12},
    )  # fmt: skip
    mine = torch.cat([v.log() for _, v in project_(net, gauge, TIGHT).steps])
    assert float((mine - torch.from_numpy(found.x)).abs().max()) < 1e-6


@over_nets
@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-8])
def test_a_second_projection_does_next_to_nothing(name, tolerance):
    # Newton's step takes the coupling of layers for rank one, which is poor for layers of five units: a factor of 20.
    net, gauge, _ = build(name)
    act_(net, gauge, gauge.random(scale=1.0, seed=3))
    project_(net, gauge, MinimalNorm(tolerance))
    again = project_(net, gauge.select(lambda s: s in scalings(gauge)), TIGHT)
    assert log_norm(again) <= 20 * tolerance


@over_nets
@pytest.mark.parametrize("seed", [1, 2])
def test_the_projected_point_is_the_same_from_everywhere_on_the_orbit(name, seed):
    net, gauge, _ = build(name)
    other = copy.deepcopy(net)
    act_(other, gauge, gauge.random(scale=1.0, seed=seed))
    assert max(relative(p, q) for p, q in zip(other.parameters(), net.parameters(), strict=True)) > 0.3
    project_(net, gauge, TIGHT)
    project_(other, gauge, TIGHT)
    for (key, p), q in zip(parameters(net).items(), other.parameters(), strict=True):
        torch.testing.assert_close(q.detach(), p, rtol=1e-8, atol=1e-10, msg=key)


@pytest.mark.parametrize("name", ["mlp", "residual", "grouped", "residual conv"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_extremely_unbalanced_point_comes_back(name, dtype):
    net, gauge, _ = build(name, dtype)
    reference = copy.deepcopy(net)
    act_(net, gauge, gauge.random(scale=5.0, seed=0))
    assert drift(net, gauge).rms > 4
    project_(net, gauge, "minimal_norm")
    project_(reference, gauge, "minimal_norm")
    assert drift(net, gauge).total < 1e-3
    for p, q in zip(net.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["mlp", "one hidden layer", "residual"])
@pytest.mark.parametrize("size", [1e25, 1e-25])
def test_values_whose_squares_leave_float32(name, size):
    net, gauge, batch = build(name, torch.float32)
    first = next(iter(gauge.check(net).values()))
    with torch.no_grad():
        first.mul_(size)
    reference, before = copy.deepcopy(net).double(), net(batch)
    project_(net, gauge, MinimalNorm(1e-6))
    project_(reference, gauge, TIGHT)
    assert relative(net(batch), before) < 24 * torch.finfo(torch.float32).eps
    for p, q in zip(parameters(net).values(), parameters(reference).values(), strict=True):
        torch.testing.assert_close(p.double(), q, rtol=1e-4, atol=1e-5 * float(q.abs().max()))


def test_bfloat16_moments_are_summed_in_more_precision():
    net, gauge, _ = build("mlp", torch.bfloat16)
    wide = copy.deepcopy(net).double()
    (found, expected) = (project_(m, gauge, MinimalNorm(1e-6)) for m in (net, wide))
    for (_, a), (_, b) in zip(found.steps, expected.steps, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=0)


@settings(max_examples=40)
@given(
    widths=st.lists(st.integers(1, 9), min_size=3, max_size=7),
    bias=st.booleans(),
    seed=st.integers(0, 2**31),
    spread=st.floats(0.0, 4.0),
)
def test_laws_hold_for_random_networks(widths, bias, seed, spread):
    torch.manual_seed(seed)
    net = mlp(*widths, bias=bias).double()
    gauge, batch = declared(net), torch.randn(5, widths[0], dtype=torch.float64)
    other, before = copy.deepcopy(net), net(batch)
    act_(other, gauge, gauge.random(spread, seed))
    for m in (net, other):
        project_(m, gauge, TIGHT)
        torch.testing.assert_close(m(batch), before, rtol=1e-10, atol=1e-12)
    assert imbalance(net, gauge) < 1e-7
    assert log_norm(project_(net, gauge, TIGHT)) < 1e-9
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-9)


def test_the_element_is_one_positive_scale_per_unit():
    net, gauge, _ = build("mlp")
    element = project_(net, gauge, "minimal_norm")
    assert isinstance(element, Element)
    assert [name for name, _ in element.steps] == [s.name for s in scalings(gauge)]
    assert all(value.dtype == torch.float64 and bool((value > 0).all()) for _, value in element.steps)


def test_large_parameters_are_summed_in_pieces(monkeypatch):
    """What does not fit into the scratch buffer gives the same element."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 6, 3), torch.nn.Flatten(), torch.nn.Linear(6, 4)
    )
    model = torch.nn.Sequential(*model[:3], torch.nn.ReLU(), *model[3:]).double()
    gauge = discover(model, (torch.randn(2, 3, 5, 5, dtype=torch.float64),))
    act_(model, gauge, gauge.random(1.0, seed=1))
    whole = MinimalNorm().solve(gauge, gauge.check(model))
    monkeypatch.setattr("gaugefix.slices.balance._SCRATCH", 50)
    pieces = MinimalNorm().solve(gauge.select(lambda s: True), gauge.check(model))
    for (name, expected), (other, got) in zip(whole.steps, pieces.steps, strict=True):
        assert name == other
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=0)
