import pytest
import torch

from gaugefix.errors import DiffeomorphismError
from gaugefix.ode import Ripple, invert
from tests.ode.fields import inputs


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-6), (torch.float64, 1e-15)])
@pytest.mark.parametrize("strength", [0.3, 0.99])
def test_it_inverts_to_rounding(dtype, limit, strength):
    ripple = Ripple.random(3, strength, seed=0, dtype=dtype)
    x, t = inputs(50, 3).to(dtype), torch.linspace(-0.2, 1.2, 50, dtype=dtype)
    there = torch.func.vmap(ripple)(*invert(ripple, t, x))
    assert float((there[1] - x).abs().max()) < 8 * limit
    assert float((there[0] - t).abs().max()) < 8 * limit


def test_the_damping_is_needed_and_there():
    """A map that is steep at 0 and flat far out, where undamped steps overshoot to and fro."""
    steep = 20.0

    def squash(t, x):
        return t, x + steep * torch.arctan(steep * x)

    undamped = torch.tensor(1.0, dtype=torch.float64)
    for _ in range(50):
        slope = 1 + steep**2 / (1 + (steep * undamped) ** 2)
        undamped = undamped - (squash(0, undamped)[1] - 1) / slope
    assert not abs(squash(0, undamped)[1] - 1) < 1
    xi = torch.tensor([[30.0], [-25.0], [0.3], [1.0]], dtype=torch.float64)
    _, x = invert(squash, torch.zeros(4, dtype=torch.float64), xi)
    assert float((squash(0, x)[1] - xi).abs().max()) < 1e-11


def test_a_point_that_nothing_reaches_is_named():
    def bounded(t, x):
        return t, torch.arctan(x)

    with pytest.raises(DiffeomorphismError, match=r"reaches tau = 0, xi = \(2\), got a residual of .* after 10 steps"):
        invert(bounded, torch.zeros(1), torch.tensor([[2.0]]), iterations=10)


def test_a_fold_is_named():
    with pytest.raises(
        DiffeomorphismError, match=r"invertible Jacobian for diffeo, got a singular one at t = 0, x = \(0\)"
    ):
        invert(lambda t, x: (t, 1 + x**2), torch.zeros(1), torch.tensor([[0.0]]))


def test_it_is_the_same_without_gradients():
    """PyTorch's own Jacobians of ``solve`` under vmap are not."""
    matrix = torch.randn(2, 2, generator=torch.Generator().manual_seed(0)).double()

    def divided(t, x):
        return t, torch.linalg.solve(torch.eye(2).double() + 0.3 * t * matrix, x + 0.1 * torch.sin(x))

    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    with torch.no_grad():
        _, x = invert(divided, t, inputs(5))
    assert not x.requires_grad
    assert torch.equal(x, invert(divided, t, inputs(5))[1])
    assert float((torch.func.vmap(divided)(t, x)[1] - inputs(5)).abs().max()) < 1e-13


def test_maps_of_the_wrong_shape_are_refused():
    with pytest.raises(
        DiffeomorphismError, match=r"Expected a scalar and shape \(2,\) for \(tau, xi\) .* got \(\) and"
    ):
        invert(lambda t, x: (t, x.sum()), torch.zeros(3), torch.zeros(3, 2))
