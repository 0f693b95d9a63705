"""project_ and drift: onto a slice without changing the function, and the distance to it."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gaugefix
from gaugefix import act_, drift, project_
from gaugefix.errors import SymmetryError
from gaugefix.functional import log_norms
from gaugefix.groups import DiagonalGroup
from gaugefix.slices import MinimalNorm
from gaugefix.symmetry import Element
from gaugefix.testing import tolerance
from tests.slices.small_nets import BUILDERS, SCALED, build, declared, loss, mlp, parameters, relative, scalings
from tests.transport.fingerprint import fingerprint

TIGHT = MinimalNorm(tolerance=1e-12)
CYCLIC = ("residual", "residual conv", "recurrent")
"""Nets with units that feed units of their own class: they need not have a point of unit norm."""
SLICES_OF_NETS = [("minimal_norm", name) for name in BUILDERS if name != "odd"]
SLICES_OF_NETS += [("unit_norm", name) for name in BUILDERS if name != "odd" and name not in CYCLIC]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


# ---- the function stays ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "name"), SLICES_OF_NETS)
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_outputs_stay_within_the_tolerance_of_the_dtype(kind, name, dtype, train):
    net, gauge, batch = build(name, dtype)
    act_(net, gauge, gauge.random(scale=1.0, seed=2, conditional=True))  # a badly unbalanced start, function unchanged
    net.train(train)
    before = net(batch)
    kept = parameters(net)
    project_(net, gauge, kind)
    assert relative(net(batch), before) <= tolerance(dtype)
    assert any(not torch.equal(p, kept[n]) for n, p in net.named_parameters())


@settings(max_examples=30)
@given(
    widths=st.lists(st.integers(2, 24), min_size=3, max_size=7),
    seed=st.integers(0, 2**31),
    spread=st.floats(0.0, 2.0),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_outputs_of_random_networks_stay(widths, seed, spread, dtype):
    torch.manual_seed(seed)
    net = mlp(*widths).to(dtype)
    gauge, batch = declared(net), torch.randn(32, widths[0], dtype=dtype)
    act_(net, gauge, gauge.random(spread, seed, conditional=True))
    before = net(batch)
    project_(net, gauge, "minimal_norm")
    assert relative(net(batch), before) <= tolerance(dtype)


@pytest.mark.parametrize("name", BUILDERS)
def test_the_element_that_acted_is_returned(name):
    net, gauge, _ = build(name)
    other = copy.deepcopy(net)
    element = project_(net, gauge, MinimalNorm(1e-3))
    assert isinstance(element, Element)
    act_(other, gauge, element)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), other.parameters(), strict=True))
    act_(net, gauge, gauge.inverse(element))
    for p, q in zip(net.parameters(), build(name)[0].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-11, atol=1e-12)


def test_an_element_survives_saving(tmp_path):
    net, gauge, _ = build("bottleneck")
    element = project_(net, gauge, "minimal_norm")
    torch.save(element.state_dict(), tmp_path / "element.pt")
    loaded = Element.from_state_dict(torch.load(tmp_path / "element.pt", weights_only=True))
    assert [name for name, _ in loaded.steps] == [name for name, _ in element.steps]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(loaded.steps, element.steps, strict=True))


def test_everything_attached_moves_along():
    net, gauge, batch = build("residual conv")
    optimizer = torch.optim.AdamW(net.parameters(), amsgrad=True)
    loss(net, batch).backward()
    optimizer.step()
    average, by_hand = copy.deepcopy(net), copy.deepcopy(net)
    state = {id(p): {k: v.clone() for k, v in optimizer.state[p].items()} for p in net.parameters()}
    element = project_(net, gauge, "minimal_norm", [optimizer], averaged=[average])
    twin = torch.optim.AdamW(by_hand.parameters(), amsgrad=True)
    for p, q in zip(by_hand.parameters(), net.parameters(), strict=True):
        twin.state[p] = state[id(q)]
    act_(by_hand, gauge, element, [twin])
    assert fingerprint(twin) == fingerprint(optimizer)
    assert fingerprint(parameters(by_hand)) == fingerprint(parameters(net)) == fingerprint(parameters(average))


def test_a_model_without_continuous_symmetry_stays():
    net, gauge, _ = build("odd")
    before = fingerprint(net)
    assert project_(net, gauge, "minimal_norm").steps == ()
    assert drift(net, gauge).total == drift(net, gauge).rms == drift(net, gauge).residual == 0.0
    assert fingerprint(net) == before


def test_the_group_of_another_model_is_refused_and_nothing_changes():
    net, _, batch = build("mlp")
    optimizer = torch.optim.Adam(net.parameters())
    loss(net, batch).backward()
    optimizer.step()
    before = fingerprint(net, optimizer)
    for name, message in (
        (
            "residual",
            r"Expected a parameter 'a\.bias' in the model, got none\. This gauge group belongs to another",
        ),
        ("bottleneck", r"Expected shape \(3,\) for '0\.bias', got \(8,\)\. This gauge group belongs to another model"),
    ):
        foreign = build(name)[1]
        for action in (project_, drift):
            with pytest.raises(SymmetryError, match=message):
                action(net, foreign, "minimal_norm")
    assert fingerprint(net, optimizer) == before


def test_a_group_is_about_names_so_it_fits_copies_and_reloaded_models():
    net, gauge, _ = build("mlp")
    fresh = mlp(5, 8, 7, 6, 3).double()
    fresh.load_state_dict(net.state_dict())
    project_(net, gauge, "minimal_norm")
    project_(fresh, gauge, "minimal_norm")
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), fresh.parameters(), strict=True))


# ---- drift -----------------------------------------------------------------------------------------------------------
def log_distance(gauge, element):
    """‖log λ‖ over all scalings, from the element itself."""
    values = [value for name, value in element.steps if isinstance(gauge[name].group, DiagonalGroup)]
    return float(torch.cat(values).abs().log().norm())


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("scale", [1e-3, 0.3, 2.0])
def test_drift_is_the_distance_that_was_gone(name, scale):
    net, gauge, _ = build(name)
    gauge = gauge.select(lambda s: s in scalings(gauge))
    project_(net, gauge, TIGHT)
    element = gauge.random(scale, seed=6, conditional=True)
    act_(net, gauge, element)
    found = drift(net, gauge, TIGHT)
    gone = log_distance(gauge, element)
    assert found.total == pytest.approx(gone, rel=1e-7)
    assert found.rms == pytest.approx(gone / gauge.dimension**0.5, rel=1e-7)
    for s in gauge.applied:
        part = float(element.values[s.name].abs().log().norm()) / s.dimension**0.5
        assert found.per_symmetry[s.name] == pytest.approx(part, rel=1e-6)


def test_drift_of_a_symmetric_matrix_is_its_logarithm():
    net, gauge, _ = build("bottleneck")
    gauge = gauge.select(lambda s: s.name == "0:mixing")
    project_(net, gauge, TIGHT)
    generator = torch.Generator().manual_seed(0)
    x = 0.3 * torch.randn(3, 3, generator=generator, dtype=torch.float64)
    x = x + x.T
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    act_(net, gauge, Element((("0:mixing", torch.linalg.matrix_exp(x)[None]),)))
    assert any(relative(p, before[n]) > 0.1 for n, p in net.named_parameters())
    # The way back is the inverse up to the rotation that the slice leaves free, so it is no longer than the way there.
    assert 0.1 * float(x.norm()) < drift(net, gauge, TIGHT).total <= float(x.norm()) * (1 + 1e-9)


def test_drift_of_a_rotation_is_zero():
    """The slice leaves rotations of a GL block free."""
    net, gauge, _ = build("bottleneck")
    gauge = gauge.select(lambda s: s.name == "0:mixing")
    project_(net, gauge, TIGHT)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double()).Q
    act_(net, gauge, Element((("0:mixing", rotation[None]),)))
    assert drift(net, gauge, TIGHT).total < 1e-9


@pytest.mark.parametrize(("kind", "name"), SLICES_OF_NETS)
def test_drift_and_residual_change_nothing(kind, name):
    net, gauge, batch = build(name, torch.float32)
    loss(net, batch).backward()
    before = fingerprint(net)
    drift(net, gauge, kind)
    assert fingerprint(net) == before
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", [name for name in BUILDERS if name not in ("odd", "normed")])
def test_drift_and_residual_vanish_on_the_slice_and_only_there(name):
    net, gauge, _ = build(name)
    off = drift(net, gauge, TIGHT)
    assert off.total > 0.1
    assert off.residual > 1e-3
    project_(net, gauge, TIGHT)
    on = drift(net, gauge, TIGHT)
    assert on.total < 1e-8
    assert on.residual < 1e-8


def test_drift_is_the_norm_over_all_symmetries():
    net, gauge, _ = build("gated")
    found = drift(net, gauge)
    squares = {s.name: found.per_symmetry[s.name] ** 2 * s.dimension for s in scalings(gauge)}
    assert found.total == pytest.approx(sum(squares.values()) ** 0.5, rel=1e-12)
    assert found.rms == pytest.approx(found.total / gauge.dimension**0.5, rel=1e-12)


def test_repeated_steps_of_one_symmetry_count_as_their_product():
    _, gauge, _ = build("mlp")
    element = gauge.random(scale=1.0, seed=1, conditional=True)
    assert log_norms(gauge, element.then(gauge.inverse(element))) == pytest.approx(dict.fromkeys(element.values, 0.0))
    twice = log_norms(gauge, element.then(element))
    assert twice == pytest.approx({name: 4 * value for name, value in log_norms(gauge, element).items()})


def test_a_linear_map_of_the_input_scale_does_not_enter():
    """Drift is a property of the orbit: the same for a function and for a multiple of it at the output."""
    net, gauge, _ = build("mlp")
    other = copy.deepcopy(net)
    with torch.no_grad():
        other[6].bias.mul_(7.0)
    assert drift(net, gauge).total == drift(other, gauge).total


def test_a_module_with_a_compiled_name_is_the_same_model():
    net, gauge, _ = build("mlp")
    wrapped = torch.nn.Module()
    wrapped._orig_mod = net
    expected = copy.deepcopy(net)
    project_(expected, gauge, "minimal_norm")
    project_(wrapped, gauge, "minimal_norm")
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), expected.parameters(), strict=True))
    assert gaugefix.drift(wrapped, gauge).total < 1e-3
