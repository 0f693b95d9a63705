"""The infinitesimal action: the derivative of the action, and its transpose."""

import pytest
import torch

from gaugefix.functional.infinitesimal import DifferentiatedInfinitesimal, infinitesimal, onto_algebra
from gaugefix.functional.vertical_fraction import counted_names
from gaugefix.groups import ComplexScaling, GeneralLinear, Orthogonal, PositiveScaling
from tests.slices.attention_nets import any_net

NETS = ["gated", "squared", "tied", "flattened", "bottleneck", "normed", "like GPT-2", "like Llama, tied"]
STEP = 1e-5


def actions(name, conditional=True):
    net, gauge, _ = any_net(name)
    tensors = {n: t.detach() for n, t in gauge.check(net).items()}
    chosen = [s for s in gauge.applied if s.group.dimension and (conditional or not s.conditional)]
    return [infinitesimal(s, tensors, counted_names(net, gauge)) for s in chosen]


def draw(action, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return onto_algebra(action.symmetry.group, torch.randn(action.shape, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("name", NETS)
def test_pushing_is_the_derivative_of_the_finite_action(name):
    for action in actions(name):
        x, group = draw(action), action.symmetry.group
        pushed = action.push(x)
        there, back = (action.symmetry.act(action.tensors, group.exp(t * x)) for t in (STEP, -STEP))
        assert set(pushed) == set(action.names)
        for parameter, moved in pushed.items():
            slope = (there[parameter] - back[parameter]) / (2 * STEP)
            torch.testing.assert_close(moved, slope, rtol=1e-6, atol=1e-6 * max(1.0, float(slope.norm())))


@pytest.mark.parametrize("name", NETS)
def test_pulling_is_the_transpose_of_pushing(name):
    generator = torch.Generator().manual_seed(5)
    for action in actions(name):
        x = draw(action, 3)
        vectors = {n: torch.randn(action.tensors[n].shape, generator=generator).double() for n in action.names}
        pushed = action.push(x)
        expected = sum(float((pushed[n] * vectors[n]).sum()) for n in action.names)
        assert float((x * action.pull(vectors)).sum()) == pytest.approx(expected, rel=1e-9, abs=1e-9)
        first = action.names[0]
        alone = float((pushed[first] * vectors[first]).sum())
        assert float((x * action.pull({first: vectors[first]})).sum()) == pytest.approx(alone, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", ["bottleneck", "like Llama", "like GPT-2"])
def test_closed_forms_and_derivatives_agree(name):
    compared = set()
    for action in actions(name):
        if isinstance(action.symmetry.group, PositiveScaling) or isinstance(action, DifferentiatedInfinitesimal):
            continue
        other = DifferentiatedInfinitesimal(action.symmetry, action.tensors, action.names)
        x = draw(action, 1)
        for parameter, moved in action.push(x).items():
            if action.symmetry.group.shape != (action.symmetry.group.coordinates,):
                torch.testing.assert_close(other.push(x)[parameter], moved)
                compared.add(type(action.symmetry.group))
        torch.testing.assert_close(other.pull(action.push(x)), action.pull(action.push(x)))
    assert compared


@pytest.mark.parametrize("group", [GeneralLinear(3, 2), ComplexScaling(2), Orthogonal(4), Orthogonal(4, 2, True)])
def test_the_projection_onto_an_algebra_is_orthogonal_and_lands_in_it(group):
    x, y = (torch.randn(group.shape, generator=torch.Generator().manual_seed(k)).double() for k in (0, 1))
    once = onto_algebra(group, x)
    group.check(group.exp(once))
    torch.testing.assert_close(onto_algebra(group, once), once)
    assert float(((x - once) * onto_algebra(group, y)).sum()) == pytest.approx(0.0, abs=1e-12)


def test_buffers_are_left_out():
    net, gauge, _ = any_net("flattened")
    buffers = dict(net.named_buffers())
    moved = {leg.parameter for s in gauge.applied for leg in getattr(s, "legs", ())}
    assert moved & set(buffers)  # statistics of the batch norm move along in eval mode
    assert not {name for action in actions("flattened") for name in action.names} & set(buffers)
