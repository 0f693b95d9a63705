"""Attention under GL(d), rotary and orthogonal elements: averages of gradients move exactly, their squares nearly.

Everything is compared with what a backward pass at the moved parameters gives, in float64.
"""

import copy
from dataclasses import replace

import pytest
import torch

from gaugefix import act_
from gaugefix.groups import ComplexScaling, GeneralLinear, Orthogonal
from gaugefix.symmetry import Element
from tests.transport.attention_nets import BUILDERS, attention, matrices, weigh

LINEAR_ENTRIES = {"momentum_buffer", "exp_avg"}
SQUARES = ("exp_avg_sq", "max_exp_avg_sq")
OPTIMIZERS = {
    "SGD": {"momentum": 0.9},
    "Adam": {"amsgrad": True},
    "AdamW": {"weight_decay": 0.1},
    "NAdam": {},
    "RAdam": {"betas": (0.9, 0.95)},
}
KINDS = [(name, kind) for name in BUILDERS for kind in (GeneralLinear, Orthogonal)] + [("rotary", ComplexScaling)]
CASES = [("Adam", name, kind) for name, kind in KINDS]
CASES += [(o, name, kind) for o in OPTIMIZERS if o != "Adam" for name, kind in KINDS if name in ("encoder", "rotary")]
over_nets = pytest.mark.parametrize("name", BUILDERS)


def gradients(net, batch):
    net.zero_grad()
    weigh(net, batch).backward()
    return {n: p.grad.clone() for n, p in net.named_parameters()}


def moved_copy(net, gauge, element):
    there = copy.deepcopy(net)
    act_(there, gauge, element)
    return there


def error(found, expected):
    """Largest distance, in units of the largest expected tensor (the gradient of a key bias is zero up to rounding)."""
    size = max(float(t.norm()) for t in expected.values())
    return max(float((found[n] - expected[n]).norm()) for n in expected) / size


def rotations(gauge):
    """The same legs under O(d) alone."""
    turned = [replace(s, acting=Orthogonal(s.group.n, s.group.batch)) for s in matrices(gauge).symmetries]
    return replace(gauge, symmetries=tuple(turned))


def follow(net, make, gauge, element, batches, squares=None):
    """Train ``net``; average the gradients of the moved copies by an optimizer that stays at the moved parameters."""
    optimizer = make(net.parameters(), lr=1e-3)
    shadow = copy.deepcopy(net)
    there = make(shadow.parameters(), lr=0.0)
    for batch in batches:
        expected = gradients(moved_copy(net, gauge, element), batch)
        for n, p in shadow.named_parameters():
            p.grad = expected[n]
        there.step()
        gradients(net, batch)
        optimizer.step()
        if squares is not None:
            squares.append({n: optimizer.state[p]["exp_avg_sq"].clone() for n, p in net.named_parameters()})
    return optimizer, {n: there.state[p] for n, p in shadow.named_parameters()}


@over_nets
def test_gradients_under_the_whole_group(name):
    net, gauge, (batch, *_) = attention(name)
    element = gauge.random(scale=0.5, seed=1, discrete=True, conditional=True)
    there = moved_copy(net, gauge, element)
    before = gradients(net, batch)
    expected = gradients(there, batch)
    act_(net, gauge, element)
    assert error({n: p.grad for n, p in net.named_parameters()}, expected) < 1e-12
    assert error(before, expected) > 1e-2


@pytest.mark.parametrize(("optimizer", "name", "kind"), CASES)
def test_averages_of_gradients_along_a_training(optimizer, name, kind):
    net, gauge, batches = attention(name)
    gauge = rotations(gauge) if kind is Orthogonal else matrices(gauge).select(lambda s: isinstance(s.group, kind))
    element = gauge.random(scale=0.5, seed=2, conditional=True)

    def make(parameters, lr):
        return getattr(torch.optim, optimizer)(parameters, lr=lr, **OPTIMIZERS[optimizer])

    moved, built = follow(net, make, gauge, element, batches)
    (entry,) = LINEAR_ENTRIES & set(moved.state[next(net.parameters())])
    before = {n: moved.state[p][entry].clone() for n, p in net.named_parameters()}
    act_(net, gauge, element, [moved])
    expected = {n: state[entry] for n, state in built.items()}
    assert error({n: moved.state[p][entry] for n, p in net.named_parameters()}, expected) < 1e-12
    assert error(before, expected) > 1e-3


@over_nets
def test_averages_of_gradients_under_the_whole_group(name):
    """At rest, for an affine step or a conjugated rotation depends on the place where a gradient was taken."""
    net, gauge, batches = attention(name)
    element = gauge.random(scale=0.5, seed=3, discrete=True, conditional=True)
    there = moved_copy(net, gauge, element)
    optimizers = []
    for model in (net, there):
        optimizers.append(torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0))
        for batch in batches:
            gradients(model, batch)
            optimizers[-1].step()
    act_(net, gauge, element, optimizers[:1])
    found, expected = (
        {n: o.state[p]["exp_avg"] for n, p in model.named_parameters()}
        for o, model in zip(optimizers, (net, there), strict=True)
    )
    assert error(found, expected) < 1e-12


def monomial(gauge, seed):
    """An element of one scaled and signed permutation per block."""
    generator = torch.Generator().manual_seed(seed)
    steps = []
    for s in gauge.applied:
        shape = (s.group.batch, s.group.n)
        orders = torch.stack([torch.randperm(shape[1], generator=generator) for _ in range(shape[0])])
        scales = torch.randn(shape, generator=generator, dtype=torch.float64)
        steps.append((s.name, torch.eye(shape[1], dtype=torch.float64)[orders] * (scales + scales.sign())[..., None]))
    return Element(tuple(steps))


@pytest.mark.parametrize("name", ["multi-head", "encoder"])
def test_second_moments_are_exact_where_nothing_mixes(name):
    net, gauge, batches = attention(name)
    gauge = matrices(gauge)
    element = monomial(gauge, 4)
    moved, built = follow(net, lambda p, lr: torch.optim.Adam(p, lr=lr, amsgrad=True), gauge, element, batches)
    act_(net, gauge, element, [moved])
    for entry in SQUARES:
        found = {n: moved.state[p][entry] for n, p in net.named_parameters()}
        assert error(found, {n: state[entry] for n, state in built.items()}) < 1e-12


@pytest.mark.parametrize("name", ["multi-head", "encoder", "rotary"])
def test_second_moments_stay_second_moments_where_entries_mix(name):
    """Not negative; the sum over an orthogonal block is kept; max_exp_avg_sq bounds what it would have become."""
    net, gauge, batches = attention(name)
    gauge = rotations(gauge)
    element, history = gauge.random(scale=1.0, seed=5, conditional=True), []
    moved, built = follow(
        net, lambda p, lr: torch.optim.Adam(p, lr=lr, amsgrad=True), gauge, element, batches, squares=history
    )
    sums = {n: float(moved.state[p]["exp_avg_sq"].sum()) for n, p in net.named_parameters()}
    act_(net, gauge, element, [moved])
    states = {n: moved.state[p] for n, p in net.named_parameters()}
    for n, state in states.items():
        assert all(bool((state[entry] >= 0).all()) for entry in SQUARES)
        assert float(state["exp_avg_sq"].sum()) == pytest.approx(sums[n], rel=1e-12)
        assert float(built[n]["exp_avg_sq"].sum()) == pytest.approx(sums[n], rel=1e-12)
    for squares in history:
        after = squares
        for s in gauge.applied:
            after = {**after, **s.transport(after, element.values[s.name], -2)}
        assert all(bool((states[n]["max_exp_avg_sq"] >= v * (1 - 1e-12)).all()) for n, v in after.items())
