"""The spectral slice: the same function, one point per orbit, and what holds there."""

import copy

import pytest
import torch
from torch import nn

from gaugefix import act_, declare, drift, project_
from gaugefix.groups import ComplexScaling, GeneralLinear, Orthogonal, Permutations, PositiveScaling
from gaugefix.slices import MinimalNorm, Spectral
from gaugefix.slices.axes import helmert
from gaugefix.slices.second_moment import second_moments
from gaugefix.slices.stream import anchored_legs, stream_moment
from gaugefix.symmetry import Exactness, Leg, LinearSymmetry, ReaderKernel, ResidualRotation, WriterKernel
from tests.slices.attention_nets import ALL, ATTENTION, any_net
from tests.slices.small_nets import SCALED, build, relative

TIGHT = Spectral(tolerance=1e-10)
over_all = pytest.mark.parametrize("name", ALL)
over_attention = pytest.mark.parametrize("name", ATTENTION)


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def named(net, gauge):
    return {name: tensor.detach() for name, tensor in gauge.check(net).items()}


def projected(name, seed=0):
    net, gauge, batch = any_net(name, seed)
    before = net(batch)
    project_(net, gauge, TIGHT)
    return net, gauge, batch, before


@over_all
def test_the_function_stays(name):
    net, _, batch, before = projected(name)
    assert relative(net(batch), before) < 1e-13


@over_all
@pytest.mark.parametrize("seed", [1, 2])
def test_every_point_of_an_orbit_leads_to_the_same_one(name, seed):
    net, gauge, _ = any_net(name, seed)
    other = copy.deepcopy(net)
    act_(other, gauge, gauge.random(0.3, seed + 5, discrete=True, conditional=True))
    before = [relative(p, q) for p, q in zip(net.parameters(), other.parameters(), strict=True)]
    assert max(before) > 0.1
    for m in (net, other):
        project_(m, gauge, TIGHT)
    for (label, p), q in zip(net.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-9 * (1.0 + float(p.detach().abs().max())), msg=label)


@over_all
def test_a_second_projection_moves_nothing(name):
    net, gauge, _, _ = projected(name)
    once = copy.deepcopy(net)
    project_(net, gauge, TIGHT)
    for p, q in zip(net.parameters(), once.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-9 * (1.0 + float(q.detach().abs().max())))


@over_all
def test_the_residual_vanishes_on_the_slice_only(name):
    net, gauge, _ = any_net(name)
    act_(net, gauge, gauge.random(0.5, seed=1, discrete=True, conditional=True))
    away = float(TIGHT.residual(gauge, named(net, gauge)))
    project_(net, gauge, TIGHT)
    assert float(TIGHT.residual(gauge, named(net, gauge))) < 1e-9
    if any(s.group.dimension for s in gauge.applied):
        assert away > 1e-3


@over_attention
def test_blocks_have_diagonal_moments_that_agree_and_decrease(name):
    net, gauge, _, _ = projected(name)
    blocks = [s for s in gauge.applied if isinstance(s.group, GeneralLinear)]
    assert blocks
    for s in blocks:
        a, b = second_moments(s, named(net, gauge))
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9 * float(a.max()))
        s_k = a.diagonal(dim1=-2, dim2=-1)
        torch.testing.assert_close(a, torch.diag_embed(s_k), rtol=0, atol=1e-9 * float(a.max()))
        assert bool((s_k.diff() < 0).all())


def test_the_moments_are_the_singular_values_of_the_product():
    torch.manual_seed(0)
    net = nn.ModuleDict({"q": nn.Linear(7, 6, bias=False), "k": nn.Linear(7, 6, bias=False)}).double()
    gauge = declare(net, GeneralLinear(3, 2), {"q.weight": 0}, {"k.weight": 0})
    heads = [net[name].weight.detach().unflatten(0, (2, 3)).clone() for name in "qk"]
    project_(net, gauge, "spectral")
    for h in range(2):
        expected = torch.linalg.svdvals(heads[0][h].T @ heads[1][h])[:3]
        for name in "qk":
            w = net[name].weight.detach().unflatten(0, (2, 3))[h]
            torch.testing.assert_close(w @ w.T, torch.diag(expected), rtol=1e-9, atol=1e-9)


def test_planes_lie_on_their_axes():
    net, gauge, _, _ = projected("like Llama")
    planes = [s for s in gauge.applied if isinstance(s.group, ComplexScaling)]
    assert planes
    for s in planes:
        a, b = second_moments(s, named(net, gauge))
        torch.testing.assert_close(a.diagonal(dim1=-2, dim2=-1).sum(-1), b.diagonal(dim1=-2, dim2=-1).sum(-1))
        both = a + b
        assert float(both[:, 0, 1].abs().max()) < 1e-9 * float(both.max())
        assert bool((both[:, 0, 0] > both[:, 1, 1]).all())


@pytest.mark.parametrize("name", ["like GPT-2", "like Llama"])
def test_a_stream_lies_on_the_axes_of_what_enters_and_leaves_it(name):
    net, gauge, _, _ = projected(name)
    (rotation,) = [s for s in gauge.applied if isinstance(s, ResidualRotation)]
    legs = anchored_legs(rotation, gauge.applied)
    assert {leg.parameter for leg, _ in legs} >= {"tokens.weight", "head.weight"}
    assert all("blocks" not in leg.parameter or leg.index.ndim == 1 for leg, _ in legs)
    moment = stream_moment(rotation, legs, named(net, gauge))
    frame = helmert(8) if rotation.acting.fixes_ones else torch.eye(8, dtype=torch.float64)
    inner = frame.T @ moment @ frame
    n = 7 if rotation.acting.fixes_ones else 8
    s = inner.diagonal()[:n]
    assert float((inner[:n, :n] - torch.diag(s)).abs().max()) < 1e-9 * float(s.max())
    assert bool((s.diff() < 0).all())


def test_kernels_and_shifts_take_the_gauge_that_scalings_leave():
    net, gauge, _, _ = projected("like GPT-2")
    tensors = named(net, gauge)
    kinds = {type(s) for s in gauge.applied}
    assert {WriterKernel, ReaderKernel} <= kinds
    for s in gauge.applied:
        if isinstance(s, WriterKernel):
            assert float(tensors[s.weight].mean(s.axis).abs().max()) < 1e-10
        if isinstance(s, ReaderKernel):
            assert float((tensors[s.weight] @ tensors[s.gain]).abs().max()) < 1e-9
    for block in net.blocks:
        for norm in (block.norm1, block.norm2):
            assert float(norm.bias.abs().max()) < 1e-10
        assert float(block.qkv.bias[8:].abs().max()) < 1e-10  # keys and values
        assert float(block.qkv.bias[:8].abs().max()) > 1e-3
    torch.testing.assert_close(net.norm.bias, net.norm.weight)


@pytest.mark.parametrize("name", [*SCALED, "like Llama", "like Llama, tied", "grouped queries"])
def test_where_nothing_shifts_the_norm_is_the_least_one(name):
    net, gauge, _ = any_net(name)
    kept = gauge.select(lambda s: not isinstance(s, ResidualRotation) and s.group.symbol[:2] != "R^")
    least = copy.deepcopy(net)
    project_(net, kept, TIGHT)
    project_(least, kept, MinimalNorm(1e-10))
    sizes = [sum(float(p.detach().square().sum()) for p in m.parameters()) for m in (net, least)]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-9)


@pytest.mark.parametrize("name", ["mlp", "odd"])
def test_units_are_in_order_of_size(name):
    net, gauge, _ = build(name)
    project_(net, gauge, TIGHT)
    for k in (0, 2):
        parts = [net[k].weight, net[k].bias[:, None], net[k + 2].weight.T]
        squares = torch.cat([p.detach().square() + p.detach().square().square() for p in parts], 1).sum(1)
        assert bool((squares.diff() < 0).all())


def test_heads_are_in_order_of_size():
    torch.manual_seed(0)
    net = nn.ModuleDict({"v": nn.Linear(5, 6, bias=False), "o": nn.Linear(6, 5, bias=False)}).double()
    gauge = declare(net, GeneralLinear(2, 3), {"v.weight": 0}, {"o.weight": 1})
    head = torch.arange(6) // 2
    legs = (Leg("v.weight", head[:, None].numpy(), 1, 0), Leg("o.weight", head[None, :].numpy(), 1, 1))
    exchange = LinearSymmetry("heads", Exactness.EXACT, acting=Permutations(3), legs=legs)
    gauge = gauge.with_symmetries([exchange], {})
    other = copy.deepcopy(net)
    act_(other, gauge, gauge.random(0.5, seed=2, discrete=True, conditional=True))
    for m in (net, other):
        project_(m, gauge, TIGHT)
        sizes = m["v"].weight.detach().unflatten(0, (3, 2)).square().sum((1, 2))
        assert bool((sizes.diff() < 0).all())
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("zero", ["a", "b"])
def test_a_block_without_full_rank_is_untouched(zero):
    """LoRA at initialisation: one factor is 0, the other must not shrink or turn."""
    torch.manual_seed(0)
    net = nn.ModuleDict({"a": nn.Linear(7, 3, bias=False), "b": nn.Linear(3, 6, bias=False)})
    gauge = declare(net, GeneralLinear(3), {"a.weight": 0}, {"b.weight": 1})
    with torch.no_grad():
        net[zero].weight.zero_()
    before = copy.deepcopy(net)
    project_(net, gauge, "spectral")
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before.parameters(), strict=True))


def test_dead_units_are_untouched():
    net, gauge, batch = build("mlp")
    with torch.no_grad():
        net[2].weight[:, 3] = 0.0
    gauge = gauge.select(lambda s: isinstance(s.group, PositiveScaling))
    before, row = net(batch), net[0].weight[3].clone()
    project_(net, gauge, TIGHT)
    assert torch.equal(net[0].weight[3], row)
    assert relative(net(batch), before) < 1e-13


def test_coinciding_singular_values_stay_where_they_are():
    """Orthogonal initialisation: A = 1 for every head, so that no axis is distinguished."""
    torch.manual_seed(0)
    net = nn.ModuleDict({"q": nn.Linear(8, 4, bias=False), "k": nn.Linear(8, 4, bias=False)}).double()
    for layer in net.values():
        nn.init.orthogonal_(layer.weight)
    gauge = declare(net, GeneralLinear(2, 2), {"q.weight": 0}, {"k.weight": 0})
    before = copy.deepcopy(net)
    project_(net, gauge, "spectral")
    for p, q in zip(net.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(p.abs(), q.abs(), rtol=0, atol=1e-12)  # signs are still fixed


def test_a_plain_rotation_is_fixed_by_the_moments_of_all_its_legs():
    torch.manual_seed(0)
    net = nn.ModuleDict({"a": nn.Linear(7, 4, bias=False), "b": nn.Linear(4, 6, bias=False)}).double()
    gauge = declare(net, Orthogonal(4), {"a.weight": 0}, {"b.weight": 1})
    other = copy.deepcopy(net)
    act_(other, gauge, gauge.random(1.0, seed=3, discrete=True, conditional=True))
    for m in (net, other):
        project_(m, gauge, "spectral")
    torch.testing.assert_close(net["a"].weight, other["a"].weight, rtol=0, atol=1e-10)
    moment = net["a"].weight @ net["a"].weight.T + net["b"].weight.T @ net["b"].weight
    torch.testing.assert_close(moment, torch.diag(moment.diagonal()), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["like Llama", "pre-norm encoder", "mlp", "bottleneck"])
def test_single_precision_reaches_the_same_point(name):
    net, gauge, _ = any_net(name)
    single = copy.deepcopy(net).float()
    for m in (net, single):
        project_(m, gauge, "spectral")
    for p, q in zip(net.parameters(), single.parameters(), strict=True):
        torch.testing.assert_close(q.double(), p, rtol=0, atol=2e-4 * (1.0 + float(p.detach().abs().max())))


def test_drift_from_the_spectral_slice_is_zero_on_it():
    net, gauge, _, _ = projected("grouped queries")
    assert drift(net, gauge, TIGHT).total < 1e-7
    act_(net, gauge, gauge.random(0.1, seed=1, conditional=True))
    assert drift(net, gauge, TIGHT).total > 1e-2
