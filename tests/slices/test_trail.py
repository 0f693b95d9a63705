"""A trail: short elements that lead where the steps led."""

import pytest
import torch

from gaugefix.errors import NonFiniteError
from gaugefix.groups import Permutations
from gaugefix.slices.trail import Trail, acted, commute
from tests.slices.attention_nets import any_net


@pytest.mark.parametrize("name", ["like GPT-2", "like Llama", "mlp", "gated", "recurrent"])
def test_the_element_leads_where_the_steps_led(name):
    net, gauge, _ = any_net(name)
    tensors = {n: t.detach() for n, t in gauge.check(net).items()}
    trail = Trail(gauge, tensors)
    generator = torch.Generator().manual_seed(0)
    names = [s.name for s in gauge.applied]
    chosen = [names[int(k)] for k in torch.randint(len(names), (25,), generator=generator)]
    for name_ in chosen:
        trail.go(name_, gauge[name_].group.random(0.1, generator))
    assert len(trail.steps) <= len(chosen)
    for label, tensor in acted(gauge, tensors, trail.element()).items():
        torch.testing.assert_close(tensor, trail.tensors[label], rtol=1e-9, atol=1e-10)
    assert all(torch.equal(tensors[n], t.detach()) for n, t in gauge.check(net).items())


def test_steps_that_commute_are_composed():
    net, gauge, _ = any_net("like Llama")
    trail = Trail(gauge, {n: t.detach() for n, t in gauge.check(net).items()})
    names = [s.name for s in gauge.applied if s.group.dimension and not s.conditional]
    for _ in range(3):
        for name in names:
            trail.go(name, gauge[name].group.random(0.1, torch.Generator().manual_seed(0)))
    assert [name for name, _ in trail.steps] == names


def test_a_permutation_does_not_commute_with_the_scales_of_its_units():
    _, gauge, _ = any_net("mlp")
    scale, other = [s for s in gauge.applied if s.group.dimension][:2]
    (exchange,) = [s for s in gauge.applied if isinstance(s.group, Permutations) and s.legs[0].parameter == "0.weight"]
    assert not commute(scale, exchange)
    assert commute(scale, other)


def test_what_is_not_finite_is_refused():
    net, gauge, _ = any_net("mlp")
    with torch.no_grad():
        net[0].weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"0\.weight"):
        Trail(gauge, {n: t.detach() for n, t in gauge.check(net).items()})
