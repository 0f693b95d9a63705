"""The flat slice: least squared gradient along the orbit, with statistics that move along."""

import copy
import io
import math

import pytest
import torch
from torch import nn

import gaugefix
from gaugefix import OrbitDrift, act_, drift, project_
from gaugefix.errors import SettingError, SliceError
from gaugefix.functional import slice_residual
from gaugefix.slices import Flat, GradientMoments, MinimalNorm
from gaugefix.slices.flat import clipped
from gaugefix.symmetry import LinearSymmetry
from tests.slices.attention_nets import any_net
from tests.slices.small_nets import SCALED, build, loss, relative

FLAT_NETS = [*SCALED, "normed"]
COUPLED = ["bottleneck", "like GPT-2", "like Llama", "pre-norm encoder"]


def gradients(net, batch):
    net.zero_grad()
    loss(net, batch).backward()
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def observed(net, gauge, batch):
    moments = GradientMoments(gauge)
    moments.observe(gradients(net, batch))
    return moments


def total(net, gauge, batch):
    """Σ‖gradient‖² over what the group moves, by autograd."""
    return float(sum(g.sum() for g in observed(net, gauge, batch).squares().values()))


def fixed_part(gauge):
    """What the slice fixes, without shifts, kernels and rotations (signs and permutations come along)."""
    return gauge.select(lambda s: isinstance(s, LinearSymmetry) and not s.conditional)


class Linears(nn.Module):
    """A linear bottleneck alone: GL(3) and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 3, bias=False), nn.Linear(3, 5)

    def forward(self, x):
        return self.b(self.a(x))


def linears():
    torch.manual_seed(0)
    net = Linears().double()
    gauge = gaugefix.discover(net, (torch.zeros(2, 6, dtype=torch.float64),))
    return net, gauge.select(lambda s: "mixing" in s.name), torch.randn(16, 6, dtype=torch.float64)


def net_of(name):
    return linears() if name == "linears" else any_net(name)


def test_one_hidden_layer_has_the_closed_form():
    net, gauge, batch = build("one hidden layer")
    g = gradients(net, batch)
    ins = g["0.weight"].square().sum(1) + g["0.bias"].square()
    outs = g["2.weight"].square().sum(0)
    (step,) = project_(net, gauge, Flat(observed(net, gauge, batch))).steps
    assert torch.allclose(step[1], (ins / outs) ** 0.25, rtol=1e-12)


@pytest.mark.parametrize("name", [*FLAT_NETS, "linears", "grouped queries", "post-norm encoder"])
def test_the_squared_gradient_is_least_along_the_orbit(name):
    net, gauge, batch = net_of(name)
    gauge = fixed_part(gauge)
    before = total(net, gauge, batch)
    outputs = net(batch).detach()
    project_(net, gauge, Flat(observed(net, gauge, batch), tolerance=1e-8))
    least = total(net, gauge, batch)
    assert least < 0.95 * before
    assert relative(net(batch), outputs) < 1e-12
    for seed in range(4):
        for scale, most in ((1e-3, 1.0 + 1e-3), (0.3, math.inf)):
            there = copy.deepcopy(net)
            act_(there, gauge, gauge.random(scale=scale, seed=seed))
            assert least < total(there, gauge, batch) < most * least
    weights_instead = copy.deepcopy(net)
    project_(weights_instead, gauge, "minimal_norm")
    assert total(weights_instead, gauge, batch) > 1.02 * least


@pytest.mark.parametrize("name", COUPLED)
def test_mixings_that_couple_come_close_at_once_and_there_in_the_end(name):
    net, gauge, batch = any_net(name)
    before = total(net, gauge, batch)
    project_(net, gauge, Flat(observed(net, gauge, batch)))
    once = total(net, gauge, batch)
    for _ in range(4):
        project_(net, gauge, Flat(observed(net, gauge, batch)))
    least = total(net, gauge, batch)
    assert least < 0.75 * before
    assert once < 1.02 * least
    assert slice_residual(net, gauge, Flat(observed(net, gauge, batch))) < 0.01


@pytest.mark.parametrize("name", [*FLAT_NETS, "linears"])
def test_transported_statistics_are_those_of_the_new_gauge(name):
    net, gauge, batch = net_of(name)
    gauge = fixed_part(gauge)
    moments = observed(net, gauge, batch)
    products_only = name == "linears"
    element = gauge.random(scale=0.3, discrete=not products_only)
    act_(net, gauge, element)
    moments.transport_(element)
    anew = observed(net, gauge, batch)
    for kind in ("products",) if products_only else ("squares",):
        found, true = getattr(moments, kind)(), getattr(anew, kind)()
        assert found.keys() == true.keys()
        assert found
        for key in true:
            assert relative(found[key], true[key]) < 1e-10


def test_statistics_that_stay_behind_lead_elsewhere():
    net, gauge, batch = build("mlp")
    moments = observed(net, gauge, batch)
    element = project_(net, gauge, Flat(moments))
    assert drift(net, gauge, Flat(observed(net, gauge, batch))).total < 1e-4
    assert drift(net, gauge, Flat(moments)).total > 0.5
    moments.transport_(element)
    assert drift(net, gauge, Flat(moments)).total < 1e-4
    assert slice_residual(net, gauge, Flat(moments)) < 1e-6
    assert float(MinimalNorm().residual(gauge, gauge.check(net))) > 1e-3


def test_the_mean_over_several_gradients_counts():
    net, gauge, _ = build("mlp")
    moments, mean = GradientMoments(gauge, decay=0.9), {}
    weights = [0.9**k * 0.1 / (1 - 0.9**5) for k in reversed(range(5))]
    for weight, seed in zip(weights, range(5), strict=True):
        g = gradients(net, torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))
        moments.observe(g)
        mean = {name: mean.get(name, 0.0) + weight * g[name].square() for name in g}
    for name, square in moments.squares().items():
        assert torch.allclose(square, mean[name], rtol=1e-12)


def test_the_factor_of_a_gradient_scaler_drops_out():
    net, gauge, batch = linears()
    g = gradients(net, batch)
    plain, scaled = GradientMoments(gauge), GradientMoments(gauge)
    plain.observe(g)
    scaled.observe({name: 256.0 * tensor for name, tensor in g.items()}, scale=torch.tensor(256.0))
    for one, two in ((plain.squares(), scaled.squares()), (plain.products(), scaled.products())):
        assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["mlp", "bottleneck"])
def test_gradients_that_are_not_finite_are_left_out(name, value):
    net, gauge, batch = build(name)
    moments = observed(net, gauge, batch)
    before = moments.state_dict()
    g = gradients(net, 2.0 * batch)
    g["0.weight"][0, 0] = value
    moments.observe(g)
    after = moments.state_dict()
    assert all(torch.equal(before[kind][key], after[kind][key]) for kind in before for key in before[kind])


def test_units_without_gradients_on_one_side_stay():
    net, gauge, batch = build("mlp")
    with torch.no_grad():
        net[0].bias[2] = -1e3  # dead: it is zero on every row
        net[4].weight[:, 3] = 0.0
    moments = observed(net, gauge, batch)
    values = Flat(moments).solve(gauge, gauge.check(net)).values
    assert float(values["0:scale"][2]) == 1.0
    assert float(values["2:scale"][3]) == 1.0  # no gradient comes in
    assert (values["0:scale"] != 1.0).sum() == 7
    partly = GradientMoments(gauge)
    partly.observe({n: g for n, g in gradients(net, batch).items() if n in ("0.weight", "0.bias", "2.weight")})
    values = Flat(partly).solve(gauge, gauge.check(net)).values
    assert (values["0:scale"] != 1.0).sum() == 7
    assert torch.equal(values["4:scale"], torch.ones_like(values["4:scale"]))


def test_units_that_died_long_ago_stay():
    """Averages fade to the smallest numbers there are, whose ratio means nothing."""
    net, gauge, batch = build("one hidden layer", torch.float32)
    moments = observed(net, gauge, batch)
    g = gradients(net, batch)
    g["0.weight"][1], g["0.bias"][1], g["2.weight"][:, 1] = 0.0, 0.0, 0.0
    for _ in range(11_000):
        moments.observe(g)
    assert 0.0 < float(moments.squares()["0.weight"][1].max()) < 1e-37
    values = Flat(moments).solve(gauge, gauge.check(net)).values
    assert float(values["0:scale"][1]) == 1.0


def test_clipped_elements_go_a_part_of_the_way():
    for name in ("mlp", "bottleneck", "like Llama"):
        net, gauge, batch = any_net(name)
        whole = Flat(observed(net, gauge, batch)).solve(gauge, gauge.check(net))
        part = clipped(gauge, whole, 0.1)
        before = total(net, gauge, batch)
        act_(net, gauge, part)
        assert total(net, gauge, batch) < before
        for (kind, all_of_it), (_, value) in zip(whole.steps, part.steps, strict=True):
            matrices = value.ndim == 3
            sizes = (torch.linalg.svdvals(value) if matrices else value).log().abs()
            assert 0.0999 < float(sizes.max()) < 0.1001, kind
            short = (torch.linalg.svdvals(all_of_it) if matrices else all_of_it).log().abs() < 0.1
            assert torch.allclose(value[short], all_of_it[short]) if not matrices else True


def test_the_state_is_plain_and_goes_on_bit_by_bit():
    net, gauge, batch = linears()
    through = observed(net, gauge, batch)
    file = io.BytesIO()
    torch.save(through.state_dict(), file)
    file.seek(0)
    resumed = GradientMoments(gauge)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for moments in (through, resumed):
        moments.observe(gradients(net, batch.flip(0)[:5]))
    one, two = through.state_dict(), resumed.state_dict()
    assert one.keys() == two.keys()
    for kind in one:
        assert one[kind].keys() == two[kind].keys()
        assert all(torch.equal(one[kind][key], two[kind][key]) for key in one[kind])
    assert one["products"]


def test_parameters_may_come_apart_and_together():
    """Several optimizers hand in their own parameters, each at its own pace."""
    net, gauge, batch = build("mlp")
    moments = GradientMoments(gauge, decay=0.5)
    g = {name: tensor for name, tensor in gradients(net, batch).items() if name in moments.names}
    first = [name for name in g if name.startswith("0")]
    for _ in range(3):
        moments.observe({name: g[name] for name in first})
    moments.observe({name: g[name] for name in g if name not in first})
    moments.observe(g)
    assert all(torch.allclose(square, g[name].square()) for name, square in moments.squares().items())
    moments.observe(dict.fromkeys(g))
    assert moments.squares().keys() == g.keys()
    moments.clear(first)
    assert moments.squares().keys() == g.keys() - set(first)


def test_sparse_gradients_count():
    class Embedded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.out = nn.Embedding(7, 4, sparse=True), nn.Linear(4, 3)

        def forward(self, ids):
            return self.out(self.embedding(ids).relu())

    net, ids = Embedded(), torch.tensor([[1, 2], [3, 1]])
    gauge = gaugefix.discover(net, (ids,))
    moments = observed(net, gauge, ids)
    assert net.embedding.weight.grad.is_sparse
    true = net.embedding.weight.grad.to_dense().square()
    assert torch.allclose(moments.squares()["embedding.weight"], true, rtol=1e-6)


def test_a_permutation_of_heads_forgets_their_products_and_keeps_the_squares():
    net, gauge, batch = any_net("like GPT-2")
    moments = observed(net, gauge, batch)
    heads = next(s for s in gauge.applied if not s.group.dimension and "qkv" in "".join(s.parameters))
    element = gaugefix.Element(((heads.name, heads.group.random(1.0, torch.Generator().manual_seed(1))),))
    act_(net, gauge, element)
    known = moments.products().keys()
    moments.transport_(element)
    gone = known - moments.products().keys()
    assert gone
    assert {moments.blocks[key].leg.parameter for key in gone} <= set(heads.parameters)
    anew = observed(net, gauge, batch).squares()
    for name, square in moments.squares().items():
        assert torch.allclose(square, anew[name], rtol=1e-6, atol=1e-9 * float(anew[name].max()))


def test_without_statistics_the_name_alone_is_answered_with_the_mend():
    net, gauge, _ = build("mlp")
    before = copy.deepcopy(net.state_dict())
    for action in (lambda: project_(net, gauge, "flat"), lambda: drift(net, gauge, "flat")):
        with pytest.raises(SliceError, match=r"statistics of gradients for slice 'flat', got none.*GaugeProjection"):
            action()
    with pytest.raises(SliceError, match=r"observed gradients for slice 'flat', got none yet. Call moments\.observe"):
        project_(net, gauge, Flat(GradientMoments(gauge)))
    with pytest.raises(SettingError, match=r"Expected a decay in \[0, 1\) for GradientMoments, got 1\.0"):
        GradientMoments(gauge, decay=1.0)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert OrbitDrift(slice="flat").slice == "flat"  # refused at the start of a fit: tests/callbacks


def test_a_group_without_scalings_has_nothing_to_do():
    net, gauge, batch = build("odd")
    assert project_(net, gauge, Flat(observed(net, gauge, batch))).steps == ()
