import pytest
import torch
from torch.func import vmap

from gaugefix.errors import FieldError
from gaugefix.ode import LandauField, depth_smoothness, holonomy
from tests.ode.fields import linear, orders
from tests.ode.terms.solutions import times


def test_its_limit_is_the_integral_at_second_order():
    """∫ ‖∂_t (A sin 3t)‖² dt = 9 ‖A‖² (1/2 + sin 6/12)."""
    a = torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double()
    expected = 9 * float(a.square().sum()) * (0.5 + torch.sin(torch.tensor(6.0).double()).item() / 12)
    errors = []
    for intervals in (16, 32, 64):
        t = times(intervals)
        errors.append(abs(float(depth_smoothness(torch.sin(3 * t)[:, None, None] * a, t)) - expected))
    assert orders(errors) == pytest.approx([2, 2], abs=0.05)


def test_constant_rotations_leave_it_and_other_gauges_do_not():
    t = times(32)
    weights = vmap(linear().weight)(t)
    matrix = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double()
    rotation = torch.linalg.qr(matrix)[0]
    plain = float(depth_smoothness(weights, t))
    assert float(depth_smoothness(rotation @ weights @ rotation.mT, t)) == pytest.approx(plain, rel=1e-12)
    assert float(depth_smoothness(matrix @ weights @ matrix.inverse(), t)) != pytest.approx(plain, rel=0.1)


def test_it_is_another_condition_than_landau_gauge():
    """Landau's W turns with depth, ‖Ẇ‖ = ‖[M, Mᵀ]‖, unless it is normal."""
    t = times(256)
    field = LandauField(holonomy(linear(bias=False))[:-1, :-1])
    m = field.generator
    expected = float((m @ m.mT - m.mT @ m).square().sum())
    assert expected > 1
    assert float(depth_smoothness(vmap(field.weight)(t), t)) == pytest.approx(expected, rel=1e-2)


def test_it_takes_parameters():
    weights = torch.randn(4, 2, 2, requires_grad=True)
    depth_smoothness(weights, torch.arange(4.0)).backward()
    assert bool((weights.grad != 0).all())


def test_wrong_arguments_are_refused():
    with pytest.raises(FieldError, match=r"Expected shape \(3, \.\.\.\) for weights, got \(2, 1\)"):
        depth_smoothness(torch.zeros(2, 1), torch.arange(3.0))
    with pytest.raises(FieldError, match="rising times"):
        depth_smoothness(torch.zeros(2, 1), torch.zeros(2))
