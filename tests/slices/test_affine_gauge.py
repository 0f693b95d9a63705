"""The gauge of shifts and kernels: reached at once, and kept by every linear symmetry."""

import pytest
import torch

from gaugefix.groups import Permutations
from gaugefix.slices.affine_gauge import affine_step, fix_affine
from gaugefix.slices.trail import Trail
from gaugefix.symmetry import LinearSymmetry, ReaderKernel, ResidualRotation, ShiftSymmetry, WriterKernel
from tests.slices.attention_nets import any_net

NETS = ["like GPT-2", "post-norm encoder", "pre-norm encoder", "normed", "bottleneck", "flattened"]
over_nets = pytest.mark.parametrize("name", NETS)


def on_the_gauge(name, seed=0):
    net, gauge, _ = any_net(name, seed)
    affine = [s for s in gauge.applied if not isinstance(s, (LinearSymmetry, ResidualRotation))]
    assert affine
    trail = Trail(gauge, {n: t.detach() for n, t in gauge.check(net).items()})
    fix_affine(trail, affine, 1e-12)
    return trail, affine


def largest(affine, tensors):
    return max(affine_step(s, tensors)[1] for s in affine)


@over_nets
def test_the_conditions_hold_afterwards(name):
    net, gauge, _ = any_net(name)
    before = {n: t.detach().double() for n, t in gauge.check(net).items()}
    trail, affine = on_the_gauge(name)
    assert largest(affine, before) > 1e-2
    assert largest(affine, trail.tensors) < 1e-12
    assert len(trail.steps) <= 4 * len(affine)  # no slow approach


@over_nets
def test_linear_symmetries_keep_the_conditions(name):
    trail, affine = on_the_gauge(name)
    generator = torch.Generator().manual_seed(0)
    for s in trail.gauge.applied:
        if isinstance(s, (LinearSymmetry, ResidualRotation)):
            value = s.group.random(0.5, generator)
            moved = {**trail.tensors, **s.act(trail.tensors, value)}
            assert largest(affine, moved) < 1e-10, s.name


@over_nets
def test_the_gauge_is_the_same_from_everywhere_on_the_orbit(name):
    trail, affine = on_the_gauge(name)
    other = Trail(trail.gauge, trail.tensors)
    generator = torch.Generator().manual_seed(1)
    for s in affine:
        other.go(s.name, s.group.random(0.3, generator))
    assert largest(affine, other.tensors) > 1e-2
    fix_affine(other, affine, 1e-12)
    for label, tensor in trail.tensors.items():
        torch.testing.assert_close(other.tensors[label], tensor, rtol=1e-9, atol=1e-10)


def test_every_kind_occurs():
    kinds = {type(s) for name in NETS for s in on_the_gauge(name)[1]}
    assert kinds == {ShiftSymmetry, WriterKernel, ReaderKernel}
    conditional = [s for s in on_the_gauge("like GPT-2")[1] if s.conditional]
    assert conditional


def test_a_bias_behind_a_bias_takes_everything():
    """b₁ → 0, b₂ → b₂ + W₂b₁."""
    net, _, _ = any_net("bottleneck")
    weight, first, second = (p.detach().clone() for p in (net[1].weight, net[0].bias, net[1].bias))
    trail, _ = on_the_gauge("bottleneck")
    torch.testing.assert_close(trail.tensors["0.bias"], torch.zeros(3).double(), rtol=0, atol=1e-14)
    torch.testing.assert_close(trail.tensors["1.bias"], second + weight @ first)


def test_rows_of_an_embedding_are_centred_and_the_mean_goes_to_the_positions():
    trail, _ = on_the_gauge("like GPT-2")
    tokens, positions = trail.tensors["tokens.weight"], trail.tensors["positions.weight"]
    assert float(tokens.mean(0).abs().max()) < 1e-12
    assert float(tokens.mean(1).abs().max()) < 1e-12
    assert float(positions.mean(1).abs().max()) < 1e-12
    assert float(positions.mean(0).abs().max()) > 1e-2


def test_a_gain_with_a_zero_leaves_its_readers_alone():
    net, gauge, _ = any_net("normed")
    with torch.no_grad():
        net[1].weight[2] = 0.0
    tensors = {n: t.detach().double() for n, t in gauge.check(net).items()}
    (reader,) = [s for s in gauge.applied if isinstance(s, ReaderKernel)]
    value, size = affine_step(reader, tensors)
    assert size == 0.0
    assert not bool(value.any())


def test_permutations_are_among_what_keeps_the_conditions():
    trail, _ = on_the_gauge("like GPT-2")
    assert any(isinstance(s.group, Permutations) for s in trail.gauge.applied)
