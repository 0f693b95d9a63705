"""Averaged copies move by the same element and keep their own function."""

import copy

import pytest
import torch

from gaugefix import act_, project_
from tests.slices.small_nets import BUILDERS
from tests.transport.trained_copies import trained_copies

over_nets = pytest.mark.parametrize("name", BUILDERS)


@over_nets
def test_averaged_copies_keep_their_function_and_move_by_the_same_element(name):
    net, gauge, batch, plain, average = trained_copies(name)
    models = (net, plain, average)
    before = [m.eval()(batch) for m in models]
    element = gauge.random(scale=0.7, seed=1, discrete=True, conditional=True)
    alone = copy.deepcopy(plain)
    act_(alone, gauge, element)
    act_(net, gauge, element, averaged=[plain, average])
    for m, old in zip(models, before, strict=True):
        torch.testing.assert_close(m(batch), old, rtol=1e-11, atol=1e-12)
    assert all(torch.equal(p, q) for p, q in zip(plain.parameters(), alone.parameters(), strict=True))


def test_averaging_goes_on_in_the_new_gauge():
    """EMA of (g·θ) = g·(EMA of θ) for linear g: the average of moved points is the moved average."""
    net, gauge, _, plain, average = trained_copies("mlp")
    element = gauge.random(scale=1.0, seed=1, conditional=True)
    expected = copy.deepcopy(average)
    expected.update_parameters(plain)
    act_(expected.module, gauge, element)
    act_(net, gauge, element, averaged=[average, plain])
    average.update_parameters(plain)
    for p, q in zip(average.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["mlp", "bottleneck"])
def test_a_copy_given_twice_moves_once(name):
    net, gauge, _, plain, average = trained_copies(name)
    element = gauge.random(scale=1.0, conditional=True)
    expected = [copy.deepcopy(m) for m in (net, plain, average.module)]
    for m in expected:
        act_(m, gauge, element)
    act_(net, gauge, element, averaged=[plain, average, plain, average.module, net])
    for m, once in zip((net, plain, average.module), expected, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(m.parameters(), once.parameters(), strict=True))


def test_a_copy_may_have_another_precision():
    net, gauge, batch, plain, _ = trained_copies("mlp")
    net.to(torch.bfloat16)
    plain.to(torch.float64)
    before = plain(batch)
    project_(net, gauge, "minimal_norm", averaged=[plain])
    torch.testing.assert_close(plain(batch), before, rtol=1e-12, atol=1e-13)
