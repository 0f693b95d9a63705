"""The unit-norm slice: incoming vectors of norm 1."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gaugefix import act_, drift, project_
from gaugefix.errors import SliceError
from gaugefix.groups import PositiveScaling
from gaugefix.slices import UnitNorm
from gaugefix.symmetry import LinearSymmetry
from tests.slices.small_nets import SCALED, build, declared, mlp, parameters, relative, scalings

TIGHT = UnitNorm(tolerance=1e-12)
FEEDFORWARD = [name for name in SCALED if name not in ("residual", "recurrent", "residual conv")]


def incoming(net, gauge):
    """‖incoming vector‖² of every unit of every scaling, from the Noether picture: squares under vector legs."""
    tensors = gauge.check(net)
    for s in scalings(gauge):
        total = torch.zeros(s.group.coordinates, dtype=torch.float64)
        for leg in s.legs:
            if leg.power > 0 and not leg.buffer:
                squares = tensors[leg.parameter].detach().double().square()
                index = torch.from_numpy(leg.index.copy()).expand(squares.shape)
                total.index_add_(0, index[index >= 0], squares[index >= 0])
        yield s.name, total


@pytest.mark.parametrize("name", FEEDFORWARD)
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_every_incoming_vector_has_norm_one(name, scale):
    net, gauge, batch = build(name)
    act_(net, gauge, gauge.random(scale, seed=4))
    before = net(batch)
    project_(net, gauge, TIGHT)
    for unit, squares in incoming(net, gauge):
        torch.testing.assert_close(squares, torch.ones_like(squares), rtol=1e-10, atol=0, msg=unit)
    assert relative(net(batch), before) < 1e-13
    assert drift(net, gauge, TIGHT).residual < 1e-10


def test_weights_and_bias_count_together():
    net, gauge, _ = build("mlp")
    project_(net, gauge, TIGHT)
    for layer in (net[0], net[2], net[4]):
        torch.testing.assert_close(layer.weight.square().sum(1) + layer.bias.square(), torch.ones_like(layer.bias))


@pytest.mark.parametrize("name", FEEDFORWARD)
def test_a_second_projection_is_the_identity(name):
    net, gauge, _ = build(name)
    project_(net, gauge, TIGHT)
    again = project_(net, gauge, TIGHT)
    assert max(float(value.log().abs().max()) for _, value in again.steps) < 1e-10


@settings(max_examples=25)
@given(
    widths=st.lists(st.integers(1, 9), min_size=3, max_size=6), seed=st.integers(0, 2**31), spread=st.floats(0.0, 4.0)
)
def test_the_projected_point_is_the_same_from_everywhere_on_the_orbit(widths, seed, spread):
    torch.manual_seed(seed)
    net = mlp(*widths).double()
    gauge, other = declared(net), copy.deepcopy(net)
    act_(other, gauge, gauge.random(spread, seed))
    for m in (net, other):
        project_(m, gauge, TIGHT)
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_unbalanced_points_in_low_precision_are_solved(dtype, scale):
    net, gauge, _ = build("mlp", dtype)
    act_(net, gauge, gauge.random(scale, seed=0))
    project_(net, gauge, "unit_norm")
    tolerance = 16 * torch.finfo(dtype).eps
    for _, squares in incoming(net, gauge):
        torch.testing.assert_close(squares, torch.ones_like(squares), rtol=tolerance, atol=0)


def test_units_that_feed_themselves_a_little_can_be_solved():
    net, gauge, _ = build("recurrent")
    with torch.no_grad():
        net.h.weight.mul_(0.5)
    project_(net, gauge, TIGHT)
    for _, squares in incoming(net, gauge):
        torch.testing.assert_close(squares, torch.ones_like(squares), rtol=1e-10, atol=0)


def test_values_whose_squares_overflow_float32_are_solved():
    net, gauge, _ = build("mlp", torch.float32)
    with torch.no_grad():
        net[0].weight.mul_(1e25)
    project_(net, gauge, "unit_norm")
    for _, squares in incoming(net, gauge):
        torch.testing.assert_close(squares, torch.ones_like(squares), rtol=1e-5, atol=0)


def test_zero_and_dead_units_are_left_alone():
    net, gauge, _ = build("mlp")
    with torch.no_grad():
        net[0].weight[[0, 3]], net[0].bias[[0, 3]] = 0.0, 0.0
        net[2].weight[:, [3, 5]] = 0.0
    element = project_(net, gauge, TIGHT)
    assert element.values["0:scale"][[0, 3, 5]].tolist() == [1.0, 1.0, 1.0]
    assert all(bool(p.isfinite().all()) for p in net.parameters())
    norms = net[0].weight.square().sum(1) + net[0].bias.square()
    torch.testing.assert_close(norms[[1, 2, 4, 6, 7]], torch.ones(5).double(), rtol=1e-10, atol=0)


def test_a_block_becomes_orthonormal():
    net, gauge, batch = build("bottleneck")
    before = net(batch)
    project_(net, gauge, TIGHT)
    rows = torch.cat([net[0].weight, net[0].bias[:, None]], dim=1)
    torch.testing.assert_close(rows @ rows.mT, torch.eye(3).double(), rtol=0, atol=1e-9)
    incoming_ = net[1].weight.square().sum(1) + net[1].bias.square()
    torch.testing.assert_close(incoming_, torch.ones(5).double(), rtol=1e-9, atol=0)
    assert relative(net(batch), before) < 1e-13
    assert drift(net, gauge, TIGHT).total < 1e-8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("factor", [0.9, 3.0, 100.0])
def test_units_that_feed_themselves_are_refused_and_nothing_changes(factor, dtype):
    net, gauge, _ = build("recurrent", dtype)
    with torch.no_grad():
        net.h.weight.mul_(factor)  # Σ_j h_ij²·λ_i²/λ_j² < 1 for every i has no solution: the scales run away
    before = parameters(net)
    message = r"Expected an orbit that meets the unit-norm slice, got no convergence in \d+ sweeps\. Units that feed "
    message += r"themselves \(shared recurrent weights\) cannot all have norm 1: use slice='minimal_norm'"
    with pytest.raises(SliceError, match=message):
        project_(net, gauge, "unit_norm")
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())


def test_only_scalings_and_blocks_take_part():
    net, gauge, _ = build("normed")
    element = project_(net, gauge, "unit_norm")
    assert {name for name, _ in element.steps} == {s.name for s in scalings(gauge)}
    assert all(isinstance(gauge[name], LinearSymmetry) for name, _ in element.steps)
    assert isinstance(gauge["2:scale"].group, PositiveScaling)
