"""The minimal-norm slice of rotary planes: r² = √(tr B / tr A) per plane, the phase left as it is."""

import copy

import pytest
import torch
from torch import nn

from gaugefix import act_, declare, drift, project_
from gaugefix.groups import ComplexScaling, GeneralLinear, PositiveScaling
from gaugefix.slices import MinimalNorm
from gaugefix.symmetry import Exactness, GaugeGroup, Leg, LinearSymmetry

TIGHT = MinimalNorm(tolerance=1e-12)


def pair(planes=3, order=None, seed=0):
    """Queries and keys of one head, and the planes between them: coordinates 2j, 2j + 1 unless ``order`` says other."""
    torch.manual_seed(seed)
    net = nn.ModuleDict({"q": nn.Linear(5, 2 * planes), "k": nn.Linear(5, 2 * planes)}).double()
    order = torch.arange(2 * planes) if order is None else order
    legs = []
    for name, power in (("q", 1), ("k", -1)):
        legs += [Leg(f"{name}.weight", order[:, None].numpy(), power), Leg(f"{name}.bias", order.numpy(), power)]
    symmetry = LinearSymmetry("planes", Exactness.EXACT, acting=ComplexScaling(planes), legs=tuple(legs))
    return net, GaugeGroup((symmetry,), {name: tuple(p.shape) for name, p in net.named_parameters()})


def squares(layer, order):
    """|P|² per plane, over weight and bias."""
    per_entry = torch.cat([layer.weight, layer.bias[:, None]], 1).detach().square().sum(1)
    return torch.zeros(len(order) // 2).double().index_add_(0, order // 2, per_entry)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [0, 2, 4, 1, 3, 5]], ids=["interleaved", "half-split"])
def test_every_plane_takes_its_closed_form(order):
    order = torch.tensor(order)
    net, gauge = pair(order=order)
    a, b = squares(net.q, order), squares(net.k, order)
    ((_, g),) = project_(net, gauge, "minimal_norm").steps
    expected = (b / a).pow(0.25)
    torch.testing.assert_close(g, expected[:, None, None] * torch.eye(2).double())
    torch.testing.assert_close(squares(net.q, order), (a * b).sqrt())
    torch.testing.assert_close(squares(net.k, order), (a * b).sqrt())


def test_scores_of_a_plane_are_kept_and_the_norm_is_the_smallest():
    net, gauge = pair()
    act_(net, gauge, gauge.random(1.0, seed=1))
    q, k = torch.randn(2, 4, 5, dtype=torch.float64)
    products = (net.q(q) * net.k(k)).unflatten(1, (3, 2)).sum(2)
    project_(net, gauge, TIGHT)
    torch.testing.assert_close((net.q(q) * net.k(k)).unflatten(1, (3, 2)).sum(2), products)
    least = sum(float(p.detach().square().sum()) for p in net.parameters())
    for seed in range(50):
        other = copy.deepcopy(net)
        act_(other, gauge, gauge.random(0.1, seed))
        assert least <= sum(float(p.detach().square().sum()) for p in other.parameters())


def test_a_dead_plane_is_untouched_and_its_neighbours_are_solved():
    net, gauge = pair()
    with torch.no_grad():
        net.k.weight[2:4], net.k.bias[2:4] = 0.0, 0.0
    before = copy.deepcopy(net)
    ((_, g),) = project_(net, gauge, "minimal_norm").steps
    assert torch.equal(g[1], torch.eye(2).double())
    assert torch.equal(net.q.weight[2:4], before.q.weight[2:4])
    assert float((g[0] - torch.eye(2)).abs().max()) > 1e-3


def test_a_second_projection_is_the_identity():
    net, gauge = pair()
    act_(net, gauge, gauge.random(1.0, seed=1))
    assert drift(net, gauge, TIGHT).total > 0.1
    project_(net, gauge, TIGHT)
    assert drift(net, gauge, TIGHT).total < 1e-12


def test_planes_blocks_and_scalings_that_share_weights_reach_the_slice_of_all():
    torch.manual_seed(0)
    sizes = {"x": (6, 5), "q": (4, 6), "k": (4, 6), "v": (3, 6), "o": (4, 3)}
    net = nn.ModuleDict({name: nn.Linear(fan_in, out, bias=False) for name, (out, fan_in) in sizes.items()}).double()
    gauge = declare(net, PositiveScaling(6), {"x.weight": 0}, {f"{n}.weight": 1 for n in "qkv"})
    gauge = declare(net, ComplexScaling(2), {"q.weight": 0}, {"k.weight": 0}, gauge=gauge)
    gauge = declare(net, GeneralLinear(3), {"v.weight": 0}, {"o.weight": 1}, gauge=gauge)
    project_(net, gauge, TIGHT)
    x, q, k, v, o = (net[name].weight.detach() for name in "xqkvo")
    units = x.square().sum(1)
    torch.testing.assert_close(units, sum(w.square().sum(0) for w in (q, k, v)), rtol=1e-9, atol=0)
    torch.testing.assert_close(
        q.unflatten(0, (2, 2)).square().sum((1, 2)), k.unflatten(0, (2, 2)).square().sum((1, 2)), rtol=1e-9, atol=0
    )
    torch.testing.assert_close(v @ v.T, o.T @ o, rtol=1e-9, atol=1e-12)


def test_unit_norm_scales_whole_planes():
    net, gauge = pair()
    order = torch.arange(6)
    project_(net, gauge, "unit_norm")
    torch.testing.assert_close(squares(net.q, order), torch.ones(3).double(), rtol=1e-5, atol=0)
