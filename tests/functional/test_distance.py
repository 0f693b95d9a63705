"""Distances that do not see the gauge: zero along orbits, far across them, and sound where no form is unique."""

import copy
import math

import pytest
import torch
from torch import nn

from gaugefix import act_, declare, discover, distance
from gaugefix.errors import NonFiniteError, SymmetryError
from gaugefix.functional import Distance
from gaugefix.groups import GeneralLinear, Signs
from gaugefix.slices.stream import generic_weights
from gaugefix.testing import randomise_
from tests.slices.attention_nets import ALL, any_net
from tests.slices.small_nets import build

over_all = pytest.mark.parametrize("name", ALL)


def moved(net, gauge, seed=5, scale=0.3):
    other = copy.deepcopy(net)
    act_(other, gauge, gauge.random(scale, seed, discrete=True, conditional=True))
    return other


@over_all
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-8), (torch.float32, 1e-4)])
def test_a_random_element_is_not_seen(name, dtype, bound):
    net, gauge, _ = any_net(name, seed=1)
    net = net.to(dtype)
    other = moved(net, gauge)
    before = [copy.deepcopy(m.state_dict()) for m in (net, other)]
    found = distance(net, other, gauge)
    assert float(found) < bound
    assert max(found.per_parameter.values()) < 10 * bound
    assert found.unfixed == ()
    for m, state in zip((net, other), before, strict=True):
        assert all(torch.equal(tensor, state[label]) for label, tensor in m.state_dict().items())


@over_all
def test_another_model_is_far(name):
    net, gauge, _ = any_net(name, seed=1)
    other, _, _ = any_net(name, seed=2)
    found = distance(net, other, gauge)
    assert 0.3 < float(found) < 2.0
    assert float(distance(net, moved(other, gauge), gauge)) == pytest.approx(float(found), rel=1e-3)


@pytest.mark.parametrize("name", ["like GPT-2", "like Llama", "post-norm encoder", "mlp", "odd", "residual conv"])
@pytest.mark.parametrize("noise", [1e-6, 1e-3])
def test_a_small_change_is_measured_whatever_the_gauge(name, noise):
    """Not more than the change itself, up to the condition of the canonical form; and not less than a part of it."""
    net, gauge, _ = any_net(name, seed=1)
    changed = copy.deepcopy(net)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in changed.parameters():
            p += noise * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    plain = float(distance(net, changed, gauge))
    assert 0.02 * noise < plain < 50 * noise
    assert float(distance(net, moved(changed, gauge), gauge)) == pytest.approx(plain, rel=1e-3)


def test_it_is_symmetric_and_zero_at_the_same_model():
    net, gauge, _ = any_net("grouped queries", seed=1)
    other, _, _ = any_net("grouped queries", seed=2)
    assert float(distance(net, net, gauge)) == 0.0
    assert float(distance(net, other, gauge)) == pytest.approx(float(distance(other, net, gauge)), rel=0.05)


def test_the_figures_belong_together():
    net, gauge, _ = build("mlp", seed=1)
    other, _, _ = build("mlp", seed=2)
    found = distance(net, other, gauge)
    assert isinstance(found, Distance)
    assert float(found) == found.total
    assert set(found.per_parameter) == {name for name, _ in net.named_parameters()}
    assert found.absolute > 0.0
    bare = gauge.select(lambda s: False)
    apart = math.sqrt(
        sum(float((p - q).detach().square().sum()) for p, q in zip(net.parameters(), other.parameters(), strict=True))
    )
    assert distance(net, other, bare).absolute == pytest.approx(apart)
    assert found.absolute < apart  # sorted units are nearer than unsorted ones


def test_signs_are_brought_together_where_a_sum_near_zero_would_flip_them():
    """The sums that fix the signs of these units change their own sign by a tiny change of the weights."""
    weights = generic_weights(4)
    direction = torch.tensor([float(weights[1]), -float(weights[0]), 0.0, 0.0], dtype=torch.float64)
    net = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Tanh(), nn.Linear(1, 1, bias=False)).double()
    other = copy.deepcopy(net)
    with torch.no_grad():
        net[2].weight.zero_(), other[2].weight.zero_()
        net[0].weight.copy_(direction + 1e-9 * weights)
        other[0].weight.copy_(direction - 1e-9 * weights)
    gauge = declare(net, Signs(1), {"0.weight": 0}, {"2.weight": 1})
    assert float(distance(net, other, gauge)) < 1e-7


@pytest.mark.parametrize("seed", range(3))
def test_units_of_equal_size_are_matched(seed):
    net = nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 6, bias=False)).double()
    torch.manual_seed(seed)
    for layer in (net[0], net[2]):
        nn.init.orthogonal_(layer.weight)
    gauge = discover(net, (torch.zeros(2, 6, dtype=torch.float64),))
    assert float(distance(net, moved(net, gauge), gauge)) < 1e-8


@pytest.mark.parametrize("seed", range(3))
def test_blocks_with_coinciding_singular_values_are_turned_together(seed):
    torch.manual_seed(seed)
    net = nn.ModuleDict({"q": nn.Linear(8, 4, bias=False), "k": nn.Linear(8, 4, bias=False)}).double()
    for layer in net.values():
        nn.init.orthogonal_(layer.weight)
    gauge = declare(net, GeneralLinear(2, 2), {"q.weight": 0}, {"k.weight": 0})
    assert float(distance(net, moved(net, gauge), gauge)) < 1e-8


@pytest.mark.parametrize("zero", ["a", "b"])
def test_a_block_with_one_factor_zero_is_compared_by_the_other(zero):
    torch.manual_seed(0)
    net = nn.ModuleDict({"a": nn.Linear(7, 3, bias=False), "b": nn.Linear(3, 6, bias=False)}).double()
    with torch.no_grad():
        net[zero].weight.zero_()
    gauge = declare(net, GeneralLinear(3), {"a.weight": 0}, {"b.weight": 1})
    found = distance(net, moved(net, gauge), gauge)
    assert float(found) < 1e-8
    assert found.unfixed == ()


def test_blocks_that_lose_rank_on_both_sides_are_brought_together():
    torch.manual_seed(0)
    net = nn.ModuleDict({"a": nn.Linear(2, 5, bias=False), "b": nn.Linear(5, 3, bias=False)}).double()
    gauge = declare(net, GeneralLinear(5), {"a.weight": 0}, {"b.weight": 1})
    found = distance(net, moved(net, gauge), gauge)
    assert float(found) < 1e-6
    assert found.unfixed == tuple(s.name for s in gauge.applied)


def test_dead_units_are_compared_up_to_their_scale():
    net, gauge, _ = build("mlp")
    with torch.no_grad():
        net[2].weight[:, 3] = 0.0
    found = distance(net, moved(net, gauge), gauge)
    assert float(found) < 1e-8
    assert found.unfixed == ()


def test_models_that_do_not_fit_are_refused():
    net, gauge, _ = build("mlp")
    wider = nn.Sequential(nn.Linear(5, 9))
    with pytest.raises(SymmetryError, match="Expected the same parameters in model_a and model_b, got shapes"):
        distance(net, wider, gauge)
    other, _, _ = build("residual")
    with pytest.raises(SymmetryError, match="discover it again"):
        distance(other, other, gauge)
    bad = copy.deepcopy(net)
    with torch.no_grad():
        bad[0].weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"0\.weight"):
        distance(net, bad, gauge)


def test_a_tied_weight_counts_once():
    net, gauge, _ = any_net("like Llama, tied")
    other = copy.deepcopy(net)
    randomise_(other, 3)
    found = distance(net, other, gauge)
    assert "head.weight" not in found.per_parameter
    assert found.per_parameter["tokens.weight"] > 0.1
