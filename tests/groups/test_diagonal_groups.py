"""Diagonal groups: exactness in floating point, and how random elements are distributed."""

import pytest
import torch

from gaugefix.groups import PositiveScaling, SignedScaling, Signs, Translations


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_powers_of_two_act_exactly(dtype):
    group, generator = PositiveScaling(8), torch.Generator().manual_seed(0)
    element = 2.0 ** torch.arange(-4, 4, dtype=torch.float64)
    tensor = torch.randn(5, 8, generator=generator).to(dtype)
    assert torch.equal(group.act(element, group.act(element, tensor, 1, -1), 1), tensor)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_only_the_product(dtype):
    group, generator = PositiveScaling(8), torch.Generator().manual_seed(0)
    element, tensor = group.random(0.3, generator), torch.randn(50, 8, generator=generator).to(dtype)
    assert torch.equal(group.act(element, tensor, 1), (tensor.double() * element).to(dtype))


@pytest.mark.parametrize("kind", [PositiveScaling, SignedScaling, Translations])
def test_random_has_its_scale(kind):
    group = kind(20_000)
    a = group.random(0.3, torch.Generator().manual_seed(0))
    x = a if kind is Translations else a.abs().log()
    assert x.std().item() == pytest.approx(0.3, rel=0.03)  # six standard deviations
    assert abs(x.mean().item()) < 0.013


@pytest.mark.parametrize("kind", [SignedScaling, Signs])
def test_random_signs_are_even(kind):
    a = kind(20_000).random(0.3, torch.Generator().manual_seed(0))
    assert abs(a.sign().mean().item()) < 6 / 20_000**0.5


def test_signs_are_a_subgroup_with_the_same_distance():
    a, b = (Signs(9).random(0.0, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    torch.testing.assert_close(Signs(9).distance(a, b), SignedScaling(9).distance(a, b))
