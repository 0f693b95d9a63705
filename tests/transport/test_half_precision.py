"""Half precision: computed wide, rounded once; float32 state and parameters are never rounded to less."""

import copy

import pytest
import torch

from gaugefix import act_, project_
from gaugefix.symmetry import LinearSymmetry
from gaugefix.testing import assert_invariant, tolerance
from tests.slices.small_nets import relative
from tests.transport.attention_nets import BUILDERS, attention, matrices, weigh

over_nets = pytest.mark.parametrize("name", BUILDERS)
over_halves = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])


def named(net):
    return {n: p.detach() for n, p in net.named_parameters()}


@over_nets
@over_halves
def test_attention_keeps_its_function_under_matrices(name, dtype):
    """24 eps is the contract; what is rounded once needs no more than a quarter of it."""
    limit = tolerance(dtype) / 4
    for seed in range(3):
        net, gauge, (batch, *_) = attention(name, dtype)
        gauge = matrices(gauge)
        element = gauge.random(scale=0.3, seed=seed, conditional=True)
        assert_invariant(net, batch, lambda n=net, g=gauge, e=element: act_(n, g, e), rtol=limit)
        assert_invariant(net, batch, lambda n=net, g=gauge: project_(n, g, "minimal_norm"), rtol=limit)
        assert all(p.dtype == dtype for p in net.parameters())


@over_nets
@over_halves
def test_attention_keeps_its_function_under_the_whole_group(name, dtype):
    """A shift that a map without a bias takes up divides by a sum that a large shift brings near zero."""
    for seed in range(3):
        net, gauge, (batch, *_) = attention(name, dtype)
        element = gauge.random(scale=0.1, seed=seed, conditional=True)
        assert_invariant(net, batch, lambda n=net, g=gauge, e=element: act_(n, g, e), rtol=tolerance(dtype))


@pytest.mark.parametrize("name", ["encoder", "decoder", "rotary"])
@over_halves
def test_many_steps_round_once(name, dtype):
    """Whatever a matrix, a shift, a kernel or a rotation moves is the exact value, rounded to the nearest."""
    net, gauge, (batch, *_) = attention(name, dtype)
    weigh(net, batch).backward()
    exact = copy.deepcopy(net).double()
    for p, q in zip(net.parameters(), exact.parameters(), strict=True):
        q.grad = p.grad.double()
    element = gauge.random(scale=0.3, seed=1, conditional=True)
    mixing = [s for s in gauge.applied if not isinstance(s, LinearSymmetry) or s in matrices(gauge).symmetries]
    names = {n for s in mixing for n in s.parameters}
    assert max(sum(n in s.parameters for s in gauge.applied) for n in names) > 2
    act_(net, gauge, element)
    act_(exact, gauge, element)
    half = torch.finfo(dtype).eps / 2
    for n in names:
        p, q = net.get_parameter(n), exact.get_parameter(n)
        for new, true in ((p.detach().double(), q.detach()), (p.grad.double(), q.grad)):
            slack = 1e-5 * float(true.abs().max()) + torch.finfo(dtype).tiny
            assert bool(((new - true).abs() <= half * true.abs() + slack).all()), n


def test_float32_state_of_half_parameters_keeps_its_precision():
    net, gauge, batches = attention("encoder", torch.bfloat16)
    gauge = matrices(gauge)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    for batch in batches:
        net.zero_grad()
        weigh(net, batch).backward()
        optimizer.step()
    for state in optimizer.state.values():
        state.update({e: state[e].float() * (1 + 1e-5) for e in ("exp_avg", "exp_avg_sq")})
    exact = copy.deepcopy(net).double()
    other = torch.optim.AdamW(exact.parameters())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # casts the state to the parameters' float64
    element = gauge.random(scale=0.5, seed=1, conditional=True)
    act_(net, gauge, element, [optimizer])
    act_(exact, gauge, element, [other])
    for p, q in zip(net.parameters(), exact.parameters(), strict=True):
        for entry in ("exp_avg", "exp_avg_sq"):
            new, true = optimizer.state[p][entry], other.state[q][entry]
            assert new.dtype == torch.float32
            assert float((new - true).norm()) <= 1e-6 * float(true.norm())


@pytest.mark.parametrize("name", ["encoder", "rotary"])
@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16])
def test_master_weights_move_in_their_own_precision_under_autocast(name, autocast):
    """Mixed precision keeps float32 parameters: casting products to half must not reach them."""
    net, gauge, (batch, *_) = attention(name, torch.float32)
    weigh(net, batch).backward()
    other = copy.deepcopy(net)
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        q.grad = p.grad.clone()
    before = named(copy.deepcopy(net))
    element = gauge.random(scale=0.3, seed=1, conditional=True)
    with torch.autocast("cpu", autocast):
        act_(net, gauge, element)
    act_(other, gauge, element)
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
        assert torch.equal(p.grad, q.grad)
    assert max(relative(p, before[n]) for n, p in named(net).items()) > 0.1
