"""Distances along the orbit: closed forms and the triangle that they obey."""

import copy
import math

import pytest
import torch
from torch import nn

import gaugefix
from gaugefix import Element
from gaugefix.errors import NonFiniteError, SliceError, SymmetryError
from gaugefix.functional import distances, drift, log_norms, slice_residual, step_drift
from gaugefix.groups import GeneralLinear
from gaugefix.testing import randomise_

X = torch.randn(4, 5, dtype=torch.float64)


def mlp():
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    randomise_(net, 1)
    return net, gaugefix.discover(net, (X,))


def bottleneck():
    net = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    randomise_(net, 1)
    return net, gaugefix.discover(net, (X,))


@pytest.mark.parametrize("slice", ["minimal_norm", "unit_norm"])
def test_an_element_moves_the_model_by_its_own_size(slice):
    net, gauge = mlp()
    gaugefix.project_(net, gauge, slice)
    assert drift(net, gauge, slice).total < 1e-3
    assert slice_residual(net, gauge, slice) < 1e-3
    element = gauge.random(scale=0.5, seed=2)
    gaugefix.act_(net, gauge, element)
    found = drift(net, gauge, slice)
    squares = {name: float(value.log().square().sum()) for name, value in element.values.items()}
    assert found.total == pytest.approx(math.sqrt(sum(squares.values())), rel=1e-3)
    assert found.rms == pytest.approx(math.sqrt(sum(squares.values()) / 10), rel=1e-3)
    for name, square in squares.items():
        assert found.per_symmetry[name] == pytest.approx(math.sqrt(square / gauge[name].group.dimension), rel=1e-3)
    assert found.residual == slice_residual(net, gauge, slice) > 1e-2
    assert log_norms(gauge, found.element) == pytest.approx(squares, rel=2e-3)


@pytest.mark.parametrize("slice", ["minimal_norm", "unit_norm"])
@pytest.mark.parametrize("build", [mlp, bottleneck])
def test_solving_from_nearby_gives_the_same(build, slice):
    net, gauge = build()
    gaugefix.act_(net, gauge, gauge.random(scale=1.0, seed=4))
    near = drift(net, gauge, slice).element
    before = copy.deepcopy(net.state_dict())
    gaugefix.act_(net, gauge, gauge.random(scale=0.1, seed=5))
    cold, warm = drift(net, gauge, slice), drift(net, gauge, slice, near=near)
    assert warm.per_symmetry == pytest.approx(cold.per_symmetry, rel=1e-3, abs=1e-4)
    assert warm.residual == cold.residual
    assert all(value < 1e-2 for value in (distances(gauge, cold.element, warm.element)).values())
    moved = step_drift(before, net, gauge, slice)
    assert math.sqrt(sum(distances(gauge, near, warm.element).values())) == pytest.approx(
        math.sqrt(sum(value**2 for value in moved.values())), rel=1e-2
    )


def test_drift_is_a_plain_value():
    net, gauge = mlp()
    found = drift(net, gauge)
    assert "element" not in repr(found)
    assert found == drift(net, gauge)
    assert all(type(value) is float for value in (found.total, found.rms, found.residual, *found.per_symmetry.values()))


@pytest.mark.parametrize("build", [mlp, bottleneck])
def test_step_drift_sees_the_gauge_and_nothing_else(build):
    net, gauge = build()
    before = copy.deepcopy(net.state_dict())
    element = gauge.random(scale=0.2, seed=3)
    gaugefix.act_(net, gauge, element)
    moved = step_drift(before, net, gauge)
    for name, square in log_norms(gauge, element).items():
        if type(gauge[name].group).__name__ == "PositiveScaling":
            assert moved[name] == pytest.approx(math.sqrt(square), rel=1e-2)
        else:
            assert moved[name] > 0.1  # a rotation leaves minimal norm, so that only a part of GL is seen
    assert all(value < 1e-6 for value in step_drift(net.state_dict(), net, gauge).values())


def test_projecting_moves_by_the_drift():
    net, gauge = mlp()
    before, expected = copy.deepcopy(net.state_dict()), drift(net, gauge).total
    gaugefix.project_(net, gauge, "minimal_norm")
    moved = step_drift(before, net, gauge)
    assert math.sqrt(sum(value**2 for value in moved.values())) == pytest.approx(expected, rel=1e-3)


def test_distances_are_symmetric_and_fill_in_the_identity():
    net, gauge = mlp()
    a, b = gauge.random(seed=1), gauge.random(seed=2)
    assert distances(gauge, a, b) == pytest.approx(distances(gauge, b, a))
    assert distances(gauge, a, a) == pytest.approx(dict.fromkeys(a.values, 0.0), abs=1e-12)
    half = Element(a.steps[:1])
    assert distances(gauge, half, Element(()))[a.steps[0][0]] == pytest.approx(log_norms(gauge, a)[a.steps[0][0]])
    assert set(distances(gauge, half, b)) == set(b.values)
    assert distances(gauge, Element(()), Element(())) == {}
    twice = a.then(a)
    assert log_norms(gauge, twice) == pytest.approx({name: 4 * value for name, value in log_norms(gauge, a).items()})
    assert gauge.check(net)


def test_bad_input():
    net, gauge = mlp()
    with pytest.raises(SliceError, match="Did you mean 'minimal_norm'"):
        slice_residual(net, gauge, "minimal_nrm")
    with pytest.raises(SymmetryError, match="another model"):
        step_drift(net.state_dict(), nn.Linear(2, 2), gauge)
    with torch.no_grad():
        net[2].weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="got 1 NaN"):
        step_drift(net.state_dict(), net, gauge)


def test_elements_without_a_real_logarithm_have_a_distance():
    """Half of GL(d) has none: an exchange of two channels is π away from the identity."""
    net = nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 5))
    gauge = gaugefix.discover(net, (torch.zeros(2, 6),)).select(lambda s: isinstance(s.group, GeneralLinear))
    (symmetry,) = gauge.symmetries
    swap = symmetry.group.identity()
    swap[0, :2] = swap[0, [1, 0]]
    found = distances(gauge, Element(()), Element(((symmetry.name, swap),)))
    assert found[symmetry.name] == pytest.approx(math.pi**2)
    stretched = torch.diag_embed(torch.tensor([[2.0, 1.0, 0.5]], dtype=torch.float64))
    both = distances(gauge, Element(()), Element(((symmetry.name, stretched @ swap),)))
    assert both[symmetry.name] == pytest.approx(math.pi**2 + 2 * math.log(2.0) ** 2)
