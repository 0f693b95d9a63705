import pytest
import torch
from torch.func import jacrev, vmap

from gaugefix.errors import DiffeomorphismError
from gaugefix.ode import Ripple, check_ends
from tests.ode.fields import inputs


@pytest.mark.parametrize("interval", [(0.0, 1.0), (-1.0, 3.0)])
@pytest.mark.parametrize("seed", range(3))
def test_it_fixes_both_ends_and_nothing_between(interval, seed):
    ripple, x = Ripple.random(3, 0.5, interval=interval, seed=seed), inputs(20, 3)
    check_ends(ripple, x, interval)
    with pytest.raises(DiffeomorphismError, match=r"end slice t = 0\.25"):
        check_ends(ripple, x, (0.25, interval[1]))


@pytest.mark.parametrize("seed", range(3))
def test_its_slope_stays_below_the_bound(seed):
    ripple = Ripple.random(2, 0.8, seed=seed)
    assert float(ripple.strength) == pytest.approx(0.8)
    z = torch.cat([torch.linspace(-1, 2, 200, dtype=torch.float64)[:, None], inputs(200, 2)], 1)
    jacobian = vmap(jacrev(lambda z: torch.cat([part.reshape(-1) for part in ripple(z[0], z[1:])]) - z))(z)
    slopes = torch.linalg.matrix_norm(jacobian, 2)
    assert 0.1 < float(slopes.max()) <= 0.8


@pytest.mark.parametrize("moves", ["time", "space", "both"])
def test_it_moves_what_it_is_told_to(moves):
    ripple, x = Ripple.random(2, 0.5, moves=moves, seed=0), inputs(20, 2)
    t = torch.full((20,), 0.4, dtype=torch.float64)
    tau, xi = vmap(ripple)(t, x)
    assert bool((tau != t).all()) == (moves != "space")
    assert bool((xi != x).all()) == (moves != "time")
    if moves != "space":
        assert float(tau.std()) > 1e-3  # the new time depends on the place


def test_a_seed_makes_it_the_same_and_no_seed_another():
    one, two, other = (Ripple.random(2, seed=seed).amplitudes for seed in (0, 0, None))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strength": 1.0}, r"Expected a number in \[0, 1\) for strength, got 1.0"),
        ({"moves": "sideways"}, r"Expected one of time, space, both for moves, got 'sideways'"),
        ({"interval": (1.0, 0.0)}, r"Expected t0 < t1 for interval, got \(1.0, 0.0\)"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(DiffeomorphismError, match=message):
        Ripple.random(2, **settings)


def test_waves_that_could_fold_or_do_not_fit_are_refused():
    with pytest.raises(DiffeomorphismError, match=r"bound below 1 on the slope of Ripple, got 4.14"):
        Ripple(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]]), torch.zeros(1))
    with pytest.raises(
        DiffeomorphismError, match=r"for amplitudes, waves and phases, got \(1, 2\), \(1, 3\) and \(1,\)"
    ):
        Ripple(torch.zeros(1, 2), torch.zeros(1, 3), torch.zeros(1))
