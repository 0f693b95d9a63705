"""Vertical fraction: against dense least squares, and what is known of gradients, weights and changes of gauge."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import gaugefix
from gaugefix.errors import GaugeError, NonFiniteError, SymmetryError
from gaugefix.functional import orbit_tangent, vertical_fraction, vertical_part
from gaugefix.functional.orbit_tangent import OrbitTangent
from gaugefix.functional.vertical_fraction import counted_names
from gaugefix.symmetry import LinearSymmetry
from tests.slices.attention_nets import any_net
from tests.slices.small_nets import build
from tests.zoo.tangents import flat, tangents

NETS = ["mlp", "recurrent", "tied", "residual conv", "flattened", "bottleneck", "normed", "like GPT-2", "like Llama"]


def trained(net):
    return {name: p.detach() for name, p in net.named_parameters()}


def random_vectors(net, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(p.shape, generator=generator).double() for name, p in net.named_parameters()}


def gradient(net, args):
    generator = torch.Generator().manual_seed(2)
    outputs = net(args)
    loss = (outputs - torch.randn(outputs.shape, generator=generator).double()).square().sum()
    found = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True, materialize_grads=True)
    return dict(zip(dict(net.named_parameters()), found, strict=True))


def dense_part(net, gauge, vectors):
    """By the singular value decomposition of the tangents of finite, tiny, random elements."""
    state = {name: t.detach() for name, t in gauge.check(net).items()} | trained(net)
    group = gauge.select(lambda s: not s.conditional)
    counted = {name: t for name, t in state.items() if name in trained(net)}
    rows = tangents(group, state)
    keep = flat(state, {name: torch.ones_like(t) for name, t in counted.items()}) > 0
    _, sizes, axes = torch.linalg.svd(rows[:, keep], full_matrices=False)
    rank = int((sizes > 1e-4 * sizes[0]).sum())
    vector = flat(state, vectors)[keep]
    part = torch.zeros_like(keep, dtype=torch.float64)
    part[keep] = axes[:rank].T @ (axes[:rank] @ vector)
    return rank, part, flat(state, vectors), state


@pytest.mark.parametrize("name", NETS)
def test_against_dense_least_squares(name):
    net, gauge, _ = any_net(name)
    vectors = random_vectors(net)
    _, expected, whole, state = dense_part(net, gauge, vectors)
    part = flat(state, vertical_part(net, gauge, vectors))
    assert float((part - expected).norm()) < 2e-5 * float(whole.norm())
    fraction = vertical_fraction(net, gauge, vectors)
    assert fraction == pytest.approx(float(expected.square().sum() / whole.square().sum()), rel=1e-4)
    assert 0.0 < fraction < 1.0


def test_symmetries_that_overlap_count_once():
    """Adding one constant to a whole embedding is a shift and a writer kernel: the Gram matrix is singular."""
    net, gauge, _ = any_net("like GPT-2")
    group = gauge.select(lambda s: not s.conditional)
    rank, *_ = dense_part(net, gauge, random_vectors(net))
    assert rank < sum(s.group.dimension for s in group.applied)


@pytest.mark.parametrize("name", ["mlp", "bottleneck", "normed", "like Llama"])
def test_a_symmetry_that_is_there_twice_counts_once(name):
    net, gauge, _ = any_net(name)
    twice = gauge.with_symmetries([replace(s, name=f"{s.name} again") for s in gauge.symmetries], {})
    vectors = random_vectors(net)
    assert vertical_fraction(net, twice, vectors) == pytest.approx(vertical_fraction(net, gauge, vectors), rel=1e-9)


@pytest.mark.parametrize("name", NETS)
def test_a_change_of_gauge_is_vertical(name):
    net, gauge, _ = any_net(name)
    tangent = OrbitTangent(gauge, gauge.check(net), counted_names(net, gauge))
    moved = {}
    for action in tangent.actions:
        generator = torch.Generator().manual_seed(len(moved))
        for parameter, part in action.push(torch.randn(action.shape, generator=generator).double()).items():
            moved[parameter] = moved.get(parameter, 0.0) + part
    assert vertical_fraction(net, gauge, moved) == pytest.approx(1.0, abs=1e-10)


@pytest.mark.parametrize("name", NETS)
def test_a_gradient_is_horizontal_for_any_batch(name):
    net, gauge, batch = any_net(name)
    net.train()  # a batch norm's frozen statistics would be moved too, and have no gradient here
    vectors = gradient(net, batch)
    assert vertical_fraction(net, gauge, vectors) < 1e-20
    one = next(s for s in gauge.applied if isinstance(s, LinearSymmetry) and s.group.dimension).legs[-1].parameter
    vectors[one] = vectors[one] * 1.5  # no gradient of an invariant function any more
    assert vertical_fraction(net, gauge, vectors) > 1e-7


@pytest.mark.parametrize("name", ["mlp", "residual conv", "bottleneck"])
def test_weights_are_horizontal_at_minimal_norm_only(name):
    """Π_vert θ is the slope of ½‖θ‖² along the orbit: the moment map, which vanishes on the slice."""
    net, gauge, _ = any_net(name)
    assert vertical_fraction(net, gauge, trained(net)) > 1e-4
    gaugefix.project_(net, gauge, "minimal_norm")
    assert vertical_fraction(net, gauge, trained(net)) < 1e-6


def test_one_hidden_layer_in_closed_form():
    net, gauge, _ = any_net("one hidden layer")
    vectors = random_vectors(net)
    w, b, v = net[0].weight, net[0].bias, net[2].weight
    along = (vectors["0.weight"] * w).sum(1) + vectors["0.bias"] * b - (vectors["2.weight"] * v).sum(0)
    size = w.square().sum(1) + b.square() + v.square().sum(0)
    part = vertical_part(net, gauge, vectors)
    torch.testing.assert_close(part["0.weight"], ((along / size)[:, None] * w).detach())
    torch.testing.assert_close(part["2.weight"], (-(along / size) * v).detach())
    assert "2.bias" not in part


def test_badly_unbalanced_parameters():
    net, gauge, _ = any_net("mlp")
    gaugefix.act_(net, gauge, gauge.random(scale=3.0))
    vectors = random_vectors(net)
    part = vertical_part(net, gauge, vectors)
    rest = {name: vector - part.get(name, 0.0) for name, vector in vectors.items()}
    assert vertical_fraction(net, gauge, part) == pytest.approx(1.0, abs=1e-10)
    assert vertical_fraction(net, gauge, rest) < 1e-12


def test_dead_units_move_nothing():
    net, gauge, _ = any_net("mlp")
    with torch.no_grad():
        for parameter in (net[0].weight[2], net[0].bias[2:3], net[2].weight[:, 2]):
            parameter.zero_()
    part = vertical_part(net, gauge, random_vectors(net))
    assert all(bool(tensor.isfinite().all()) for tensor in part.values())
    assert not part["0.weight"][2].any()


def test_conditional_symmetries_count_on_request():
    net, gauge, _ = any_net("normed")
    assert any(s.conditional for s in gauge.applied)
    vectors = random_vectors(net)
    assert vertical_fraction(net, gauge, vectors, conditional=True) > vertical_fraction(net, gauge, vectors) + 1e-3


def test_half_precision_is_solved_in_double_and_nothing_is_changed():
    net, gauge, _ = any_net("mlp")
    vectors = random_vectors(net)
    exact = vertical_fraction(net, gauge, vectors)
    coarse = copy.deepcopy(net).bfloat16()
    before = trained(coarse)
    before = {name: tensor.clone() for name, tensor in before.items()}
    rounded = vertical_fraction(coarse, gauge, {name: v.bfloat16() for name, v in vectors.items()})
    assert rounded == pytest.approx(exact, rel=0.02)
    assert all(torch.equal(before[name], p) for name, p in coarse.named_parameters())
    part = vertical_part(coarse, gauge, vectors)
    assert {tensor.dtype for tensor in part.values()} == {torch.float64}


def test_a_shared_parameter_counts_once_under_any_of_its_names():
    net, gauge, _ = any_net("tied")
    vectors = random_vectors(net)
    again = {("decoder.weight" if name == "encoder.weight" else name): v for name, v in vectors.items()}
    expected = vertical_fraction(net, gauge, vectors)
    assert vertical_fraction(net, gauge, again) == pytest.approx(expected, rel=1e-12)
    assert vertical_fraction(net, gauge, {**vectors, **again}) == pytest.approx(expected, rel=1e-12)


def test_nothing_has_no_vertical_part():
    net, gauge, _ = any_net("mlp")
    assert vertical_fraction(net, gauge, {}) == 0.0
    assert vertical_fraction(net, gauge, {name: torch.zeros_like(p) for name, p in net.named_parameters()}) == 0.0
    assert vertical_fraction(nn.Linear(2, 2), gaugefix.GaugeGroup((), {}), {"weight": torch.ones(2, 2)}) == 0.0


def test_bad_input_is_named():
    net, gauge, _ = build("mlp")
    with pytest.raises(SymmetryError, match=r"Expected the name of a parameter, got '0.wieght'. Did you mean"):
        vertical_fraction(net, gauge, {"0.wieght": torch.ones(8, 5)})
    with pytest.raises(SymmetryError, match=r"Expected shape \(8, 5\) for the vector of '0.weight', got \(5, 8\)"):
        vertical_fraction(net, gauge, {"0.weight": torch.ones(5, 8)})
    with pytest.raises(NonFiniteError, match=r"Expected finite values for '0.weight', got 40 that are not"):
        vertical_fraction(net, gauge, {"0.weight": torch.full((8, 5), torch.inf)})
    with torch.no_grad():
        net[2].bias[0] = torch.nan
    with pytest.raises(NonFiniteError, match=r"'2.bias', got 1 that"):
        vertical_part(net, gauge, {"0.weight": torch.ones(8, 5)})


def test_an_iteration_that_does_not_converge_is_reported(monkeypatch):
    monkeypatch.setattr(orbit_tangent, "_STEPS", 2)
    net, gauge, _ = any_net("mlp")
    with pytest.raises(GaugeError, match=r"Expected the projection onto the orbit to converge, got .* after 2 steps"):
        vertical_fraction(net, gauge, random_vectors(net))
