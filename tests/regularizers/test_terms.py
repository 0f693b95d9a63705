"""Gauge-fixing terms: closed gradients, what each is zero on, what each control does not see."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import gaugefix
from gaugefix.errors import GaugeError, SettingError
from gaugefix.functional import vertical_fraction
from gaugefix.groups import ComplexScaling, DiagonalGroup, GeneralLinear
from gaugefix.regularizers import Reference, get_term, register_term, term_class, term_names
from gaugefix.symmetry import named_tensors
from tests.slices.attention_nets import ALL, any_net
from tests.slices.small_nets import build

GAUGE_TERMS = ("charge", "balance", "unit_norm")
SOME = ("mlp", "residual conv", "squared", "gated", "bottleneck", "like GPT-2", "like Llama", "grouped queries")


def refused(term, gauge) -> bool:
    try:
        term.check(gauge)
    except SettingError:
        return True
    return False


def by_autograd(term, gauge, net):
    tensors = named_tensors(net)
    own = {id(t): t.detach().clone().requires_grad_(t.requires_grad) for t in tensors.values()}
    leaves = {name: own[id(t)] for name, t in tensors.items()}
    wanted = {name: leaves[name] for name, _ in net.named_parameters()}
    value = term.value(gauge, leaves)
    found = torch.autograd.grad(value, list(wanted.values()), allow_unused=True)
    zero = (torch.zeros_like(leaf) if g is None else g for leaf, g in zip(wanted.values(), found, strict=True))
    return dict(zip(wanted, zero, strict=True))


def closed(term, gauge, net, strength: float = 1.0):
    gradients = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    term.add_gradient_(gauge, named_tensors(net), gradients, strength)
    return term.value(gauge, named_tensors(net)).detach(), gradients


def far(found, expected) -> float:
    size = max(1e-300, max(float(e.abs().max()) for e in expected.values()))
    return max(float((found[name] - e).abs().max()) for name, e in expected.items()) / size


def value_of(name, gauge, net) -> float:
    return float(get_term(name).value(gauge, named_tensors(net)).detach())


def largest(gradients) -> float:
    return max(float(g.abs().max()) for g in gradients.values())


@pytest.mark.parametrize("net_name", ALL)
@pytest.mark.parametrize("name", term_names())
def test_the_closed_gradient_is_that_of_the_value(name, net_name):
    net, gauge, _ = any_net(net_name)
    term = get_term(name)
    if refused(term, gauge):
        return
    if name == "reference":
        other, _, _ = any_net(net_name, seed=5)
        term = Reference({n: t.detach() for n, t in named_tensors(other).items() if n in dict(net.named_parameters())})
    expected = by_autograd(term, gauge, net)
    _, found = closed(term, gauge, net, strength=3.0)
    assert far(found, {name: 3.0 * e for name, e in expected.items()}) < 1e-5  # the solution of product_of_norms
    assert name == "product_of_norms" or far(found, {name: 3.0 * e for name, e in expected.items()}) < 1e-10
    assert any(float(e.abs().max()) > 0 for e in expected.values())
    value = float(term.value(gauge, named_tensors(net)).detach())
    assert term.measure(gauge, named_tensors(net)) == pytest.approx(value, rel=1e-9)


def test_every_term_has_a_net_that_it_applies_to():
    for name in term_names():
        assert any(not refused(get_term(name), any_net(net)[1]) for net in ALL)


def test_gradients_are_added_to_what_is_there():
    net, gauge, _ = any_net("mlp")
    before = {name: torch.ones_like(p) for name, p in net.named_parameters()}
    get_term("charge").add_gradient_(gauge, named_tensors(net), before, 0.0)
    assert all(bool((g == 1.0).all()) for g in before.values())


@pytest.mark.parametrize("net_name", ALL)
@pytest.mark.parametrize(("name", "slice_name"), [("charge", "minimal_norm"), ("balance", "minimal_norm")])
def test_a_term_vanishes_with_its_gradient_on_its_slice_and_only_there(name, slice_name, net_name):
    net, gauge, _ = any_net(net_name)
    linear = gauge.select(lambda s: isinstance(s.group, (DiagonalGroup, ComplexScaling, GeneralLinear)))
    term = get_term(name)
    if refused(term, linear):
        return
    off, slope_off = closed(term, linear, net)
    gaugefix.project_(net, linear, gaugefix.slices.MinimalNorm(tolerance=1e-10))
    on, slope_on = closed(term, linear, net)
    assert float(off) > 1e-3
    assert float(on) < 1e-12 * float(off)
    assert largest(slope_on) < 1e-6 * largest(slope_off)


@pytest.mark.parametrize("net_name", ["mlp", "residual conv", "flattened", "bottleneck"])
def test_the_unit_norm_term_vanishes_on_its_slice(net_name):
    net, gauge, _ = any_net(net_name)
    off, _ = closed(get_term("unit_norm"), gauge, net)
    gaugefix.project_(net, gauge, "unit_norm")
    on, _ = closed(get_term("unit_norm"), gauge, net)
    assert float(off) > 1e-2
    assert float(on) < 1e-10


@pytest.mark.parametrize("net_name", SOME)
def test_the_gradient_of_the_charge_is_vertical_everywhere(net_name):
    net, gauge, _ = any_net(net_name)
    _, gradient = closed(get_term("charge"), gauge, net)
    assert vertical_fraction(net, gauge, gradient) == pytest.approx(1.0, abs=1e-8)
    _, other = closed(get_term("l2"), gauge, net)
    assert vertical_fraction(net, gauge, other) < 0.9


def test_descending_the_charge_reaches_the_slice_and_keeps_the_function():
    net, gauge, batch = build("mlp")
    gaugefix.act_(net, gauge, gauge.random(scale=0.5, seed=1))
    before = net(batch).detach()
    tensors = named_tensors(net)
    for _ in range(4000):
        gradients = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
        get_term("charge").add_gradient_(gauge, tensors, gradients, 1.0)
        with torch.no_grad():
            for name, p in net.named_parameters():
                p.sub_(gradients[name], alpha=1e-3)
    assert value_of("charge", gauge, net) < 1e-8
    assert gaugefix.drift(net, gauge).total < 1e-3
    apart = float((net(batch).detach() - before).norm() / before.norm())
    assert 0.0 < apart < 0.02  # vertical steps of finite size


@pytest.mark.parametrize("net_name", ["mlp", "mlp without bias", "one hidden layer", "concatenated", "flattened"])
@pytest.mark.parametrize("name", ["path_norm", "product_of_norms"])
def test_controls_of_units_do_not_see_the_gauge(name, net_name):
    net, gauge, _ = build(net_name)
    term = get_term(name)
    before = float(term.value(gauge, named_tensors(net)).detach())
    charge = value_of("charge", gauge, net)
    gaugefix.act_(net, gauge, gauge.random(scale=0.7, seed=3))
    assert float(term.value(gauge, named_tensors(net)).detach()) == pytest.approx(before, rel=1e-9)
    assert value_of("charge", gauge, net) > 2.0 * charge


@pytest.mark.parametrize("net_name", ["bottleneck", "grouped queries", "like Llama", "post-norm encoder"])
def test_the_nuclear_norm_does_not_see_the_gauge(net_name):
    net, gauge, _ = any_net(net_name)
    blocks = gauge.select(lambda s: isinstance(s.group, GeneralLinear))
    before = value_of("nuclear_norm", blocks, net)
    gaugefix.act_(net, blocks, blocks.random(scale=0.7, seed=3))
    assert value_of("nuclear_norm", blocks, net) == pytest.approx(before, rel=1e-9)


def test_the_nuclear_norm_is_the_sum_of_singular_values():
    net, gauge, _ = any_net("bottleneck")
    first, second = net[0], net[1]
    product = second.weight @ torch.cat([first.weight, first.bias[:, None]], 1)
    blocks = gauge.select(lambda s: isinstance(s.group, GeneralLinear))
    expected = float(torch.linalg.svdvals(product.detach()).sum())
    assert value_of("nuclear_norm", blocks, net) == pytest.approx(expected, rel=1e-10)


def test_the_product_of_norms_of_one_hidden_layer():
    net, gauge, _ = build("one hidden layer")
    ins = net[0].weight.square().sum(1) + net[0].bias.square()
    expected = float((ins * net[2].weight.square().sum(0)).sqrt().sum().detach())
    assert value_of("product_of_norms", gauge, net) == pytest.approx(expected, rel=1e-10)


def test_the_path_norm_is_a_forward_pass_with_squared_weights():
    net, gauge, _ = build("mlp")
    h = torch.ones(5, dtype=torch.float64)
    linear = [layer for layer in net if isinstance(layer, nn.Linear)]
    for layer in linear:
        h = layer.weight.square() @ h + layer.bias.square()
    expected = float((h - linear[-1].bias.square()).sum().detach())  # the last bias has no unit to go through
    assert value_of("path_norm", gauge, net) == pytest.approx(expected, rel=1e-12)


def test_the_path_norm_through_two_branches():
    net, gauge, _ = build("concatenated")
    ones = torch.ones(5, dtype=torch.float64)

    def through(layer, h):
        return layer.weight.square() @ h + layer.bias.square()

    h = through(net.c, torch.cat([through(net.a, ones), through(net.b, ones)]))
    expected = float((net.d.weight.square() @ h).sum().detach())
    assert value_of("path_norm", gauge, net) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "net_name", "what"),
    [
        ("path_norm", "residual", "cycle"),
        ("path_norm", "recurrent", "cycle"),
        ("path_norm", "squared", "one step of paths"),
        ("path_norm", "like GPT-2", "path_norm"),
        ("orthogonality", "mlp", "Use unit_norm"),
        ("nuclear_norm", "mlp", "use product_of_norms"),
        ("depth_smoothness", "one hidden layer", "repeated layers"),
    ],
)
def test_a_term_without_meaning_is_refused_with_the_mend(name, net_name, what):
    _, gauge, _ = any_net(net_name)
    with pytest.raises(SettingError, match=what):
        get_term(name).check(gauge)


def test_blocks_alone_have_no_product_of_norms():
    _, gauge, _ = any_net("bottleneck")
    with pytest.raises(SettingError, match="use nuclear_norm"):
        get_term("product_of_norms").check(gauge.select(lambda s: isinstance(s.group, GeneralLinear)))


def test_orthogonality_is_zero_for_orthonormal_rows():
    net, gauge, _ = any_net("bottleneck")
    with torch.no_grad():
        net[0].bias.zero_()
        net[0].weight.copy_(torch.linalg.qr(net[0].weight.mT)[0].mT)
    blocks = gauge.select(lambda s: isinstance(s.group, GeneralLinear))
    assert value_of("orthogonality", blocks, net) < 1e-20
    with torch.no_grad():
        net[0].weight.mul_(2.0)
    assert value_of("orthogonality", blocks, net) == pytest.approx(3 * 3.0**2)


def test_depth_smoothness_by_hand():
    net = nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)
    )
    gauge = gaugefix.discover(net, (torch.randn(3, 4),))
    weights = (net[4].weight - net[2].weight).square().sum()
    biases = (net[2].bias - net[0].bias).square().sum() + (net[4].bias - net[2].bias).square().sum()
    found = get_term("depth_smoothness").value(gauge, named_tensors(net))
    torch.testing.assert_close(found, weights + biases)


def test_balance_is_the_squared_distance_of_one_uncoupled_layer():
    net, gauge, _ = build("one hidden layer")
    found = value_of("balance", gauge, net)
    assert found == pytest.approx(16.0 * gaugefix.drift(net, gauge).total ** 2, rel=1e-3)


def test_balance_leaves_dead_units_and_empty_blocks_out():
    net, gauge, _ = any_net("mlp")
    with torch.no_grad():
        net[0].weight[2] = 0.0
        net[0].bias[2] = 0.0
    value, gradients = closed(get_term("balance"), gauge, net)
    assert math.isfinite(float(value))
    assert all(bool(torch.isfinite(g).all()) for g in gradients.values())
    adapter, gauge, _ = any_net("bottleneck")
    with torch.no_grad():
        adapter[1].weight.zero_()  # as LoRA starts
    _, gradients = closed(get_term("balance"), gauge, adapter)
    assert all(bool(torch.isfinite(g).all()) for g in gradients.values())
    assert float(gradients["0.weight"].abs().max()) == 0.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["charge", "balance", "l2"])
def test_half_precision(name, dtype):
    net, gauge, _ = any_net("mlp")
    wide, expected = closed(get_term(name), gauge, net.to(dtype).double())
    value, gradients = closed(get_term(name), gauge, net.to(dtype))
    assert far({n: g.double() for n, g in gradients.items()}, expected) < 4 * torch.finfo(dtype).eps
    assert float(value) == pytest.approx(float(wide), rel=1e-2)


def test_reference_remembers_where_it_began():
    net, gauge, _ = any_net("mlp")
    term = Reference()
    assert float(term.value(gauge, named_tensors(net)).detach()) == 0.0
    with torch.no_grad():
        net[0].weight.add_(1.0)
    assert float(term.value(gauge, named_tensors(net)).detach()) == pytest.approx(0.5 * net[0].weight.numel())
    other, other_gauge, _ = any_net("one hidden layer")
    with pytest.raises(SettingError, match=r"for '2\.weight' of shape"):
        term.value(other_gauge, named_tensors(other))


def test_names_and_cards():
    with pytest.raises(SettingError, match=r"Did you mean 'charge'"):
        get_term("charg")
    with pytest.raises(SettingError, match=r"gaugefix\.regularizers\.kinetic"):
        get_term("kinetic")
    with pytest.raises(GaugeError, match="which exists"):
        register_term("l2")(type(get_term("l2")))
    for name in term_names():
        card = term_class(name)
        assert all((card.condition, card.freedom, card.cost, card.source))
        assert card.changes_function.split(":")[0].split(",")[0] in ("no", "on the way", "yes")
