"""RMSprop(centered=True) divides by √(E[g²] − E[g]²): no element may make that negative."""

import pytest
import torch

import gaugefix
from gaugefix import act_
from gaugefix.groups import DiagonalGroup
from tests.slices.attention_nets import any_net


def trained(name, steps=6):
    net, gauge, batch = any_net(name)
    optimizer = torch.optim.RMSprop(net.parameters(), 1e-3, centered=True)
    for _ in range(steps):
        optimizer.zero_grad()
        net(batch).square().mean().backward()
        optimizer.step()
    return net, gauge, batch, optimizer


def states(net, optimizer):
    return {name: dict(optimizer.state[p]) for name, p in net.named_parameters() if "grad_avg" in optimizer.state[p]}


@pytest.mark.parametrize("name", ["post-norm encoder", "grouped queries", "bottleneck", "like Llama", "mlp"])
def test_the_variance_stays_and_training_goes_on(name):
    net, gauge, batch, optimizer = trained(name)
    act_(net, gauge, gauge.random(0.5, seed=3, discrete=True), [optimizer])
    for state in states(net, optimizer).values():
        assert float((state["square_avg"] - state["grad_avg"].square()).min()) >= 0.0
    optimizer.zero_grad()
    net(batch).square().mean().backward()
    optimizer.step()
    assert all(bool(torch.isfinite(p).all()) for p in net.parameters())


def test_a_variance_moves_by_elementwise_squares_and_a_mean_exactly():
    net, gauge, _, optimizer = trained("bottleneck")
    blocks = gauge.select(lambda s: not isinstance(s.group, DiagonalGroup) and s.group.dimension)
    (block,) = [s for s in blocks.symmetries if "GL" in s.group.symbol]
    before = {n: {k: v.clone() for k, v in state.items()} for n, state in states(net, optimizer).items()}
    element = gauge.select(lambda s: s is block).random(0.5, seed=1)
    act_(net, gauge, element, [optimizer])
    (g,) = element.steps[0][1]
    inverse = torch.linalg.inv(g).mT
    old, new = before["0.weight"], states(net, optimizer)["0.weight"]
    torch.testing.assert_close(new["grad_avg"], inverse @ old["grad_avg"])
    variance = inverse.square() @ (old["square_avg"] - old["grad_avg"].square())
    torch.testing.assert_close(new["square_avg"] - new["grad_avg"].square(), variance, rtol=1e-6, atol=1e-12)


def test_scalings_move_them_as_before():
    net, gauge, _, optimizer = trained("mlp")
    before = {n: {k: v.clone() for k, v in state.items()} for n, state in states(net, optimizer).items()}
    element = gaugefix.project_(net, gauge, "minimal_norm", [optimizer])
    scale = dict(element.steps)["0:scale"]
    new = states(net, optimizer)["0.bias"]
    torch.testing.assert_close(new["square_avg"], before["0.bias"]["square_avg"] / scale.square())
