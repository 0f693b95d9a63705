"""Whatever is found in random neural ODEs is true, and no more than there is."""

import warnings

import pytest
import torchdiffeq

import gaugefix
from gaugefix.errors import NoEffectWarning
from gaugefix.testing import redundancy
from tests.discovery.neural_odes import seeded
from tests.discovery.random_fields import RandomNeuralOde, example


def check(seed: int, count: bool) -> int:
    model = seeded(lambda: RandomNeuralOde(seed), seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoEffectWarning)
        gauge = gaugefix.discover(model, example())
    gaugefix.verify(model, gauge, example())
    if count:  # by gradients of what is computed: the adjoint equation and the choice of steps have others
        model.solve, model.method = torchdiffeq.odeint, "rk4"
        assert gauge.dimension <= redundancy(model, example(), draws=1).nullity
    return gauge.dimension


@pytest.mark.parametrize("seed", range(12))
def test_every_symmetry_is_verified_and_there_are_no_more_than_the_nullity(seed):
    check(seed, count=True)


@pytest.mark.slow
def test_hundreds():
    dimensions = [check(seed, count=False) for seed in range(100, 400)]
    assert len(set(dimensions)) > 10
    assert max(dimensions) >= 20
