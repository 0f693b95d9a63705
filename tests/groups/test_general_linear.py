"""What GL(n) has beyond the laws: its true distance, its blocks, and its subgroup O(n)."""

import pytest
import torch

from gaugefix.groups import GeneralLinear, Orthogonal


def double(*rows):
    return torch.tensor([rows], dtype=torch.float64)


def test_block_b_acts_on_its_own_entries():
    group = GeneralLinear(2, batch=2)
    g = torch.stack([double([1, 2], [0, 1])[0], double([3, 0], [0, 5])[0]])
    tensor = torch.tensor([1.0, 10.0, 1.0, 10.0], dtype=torch.float64)
    assert group.act(g, tensor, 0).tolist() == [21.0, 10.0, 3.0, 50.0]
    torch.testing.assert_close(group.act(g, tensor, 0, -1), tensor.new_tensor([1.0, 8.0, 1 / 3, 2.0]))


def test_distance_adds_up_along_a_one_parameter_subgroup():
    group = GeneralLinear(4)
    x = torch.randn(group.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 4
    a, b, c = (group.exp(t * x) for t in (-0.5, 0.2, 1.0))
    torch.testing.assert_close(group.distance(a, c), group.distance(a, b) + group.distance(b, c))


@pytest.mark.parametrize("step", [0.2, 0.1, 0.05])
def test_triangle_inequality_fails_at_third_order(step):
    # c² s³ / 4 with X = sZ, Y = sZ + c s² W, from log(exp X exp Y) = X + Y + [X, Y]/2 + …, Z a shear, c = <Z, [Z, W]>
    group = GeneralLinear(2)
    z, w = double([0, 1], [0, 0]), double([1, 0], [0, -1]) / 2**0.5
    c = ((z @ w - w @ z) * z).sum()
    e, a = group.identity(), group.exp(step * z)
    b = group.compose(a, group.exp(step * z + c * step**2 * w))
    excess = group.distance(e, b) - group.distance(e, a) - group.distance(a, b)
    torch.testing.assert_close(excess, c**2 * step**3 / 4, rtol=3 * step, atol=0.0)


def test_charge_turns_with_the_orthogonal_subgroup():
    group, generator = GeneralLinear(3, batch=2), torch.Generator().manual_seed(1)
    k = Orthogonal(3, batch=2).random(1.0, generator)
    v, c = (torch.randn(5, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    turned = group.charge([group.act(k, v, -1)], [group.act(k, c, -1, -1)])
    torch.testing.assert_close(turned, k @ group.charge([v], [c]) @ k.mT)


def test_random_is_well_conditioned_for_every_size():
    for n in (2, 20, 200):
        g = GeneralLinear(n).random(0.3, torch.Generator().manual_seed(n))
        assert torch.linalg.cond(g).item() < 5
