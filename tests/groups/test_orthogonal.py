"""What O(n) has beyond the laws: components, the cut locus, and algebra vectors that are not in the algebra."""

import math

import pytest
import torch

from gaugefix.errors import GroupError
from gaugefix.groups import Orthogonal, SignedScaling


@pytest.mark.parametrize("group", [Orthogonal(3, batch=400), Orthogonal(3, batch=400, fixes_ones=True)])
def test_random_draws_both_components(group):
    g = group.random(0.3, torch.Generator().manual_seed(0))
    reflections = int((torch.linalg.det(g) < 0).sum())
    assert abs(reflections - 200) < 5 * 10  # five standard deviations


@pytest.mark.parametrize("fixes_ones", [False, True])
def test_random_has_its_scale_per_generator(fixes_ones):
    group = Orthogonal(40, fixes_ones=fixes_ones)
    g = group.random(0.01, torch.Generator().manual_seed(6))
    assert torch.linalg.det(g) > 0
    # each of the dimension generators has Frobenius norm sqrt(2)
    assert group.log(g).norm().item() == pytest.approx(0.01 * math.sqrt(2 * group.dimension), rel=0.1)


def test_nothing_but_the_identity_fixes_one_and_two_ones():
    assert torch.equal(Orthogonal(1, fixes_ones=True).random(1.0), torch.ones(1, 1, 1, dtype=torch.float64))
    swap = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]], dtype=torch.float64)
    group = Orthogonal(2, fixes_ones=True)
    for seed in range(8):
        g = group.random(1.0, torch.Generator().manual_seed(seed))
        assert torch.allclose(g, swap) or torch.allclose(g, group.identity())


def test_distance_to_a_reflection_is_pi_as_for_a_sign_flip():
    flip = torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64)
    group, signs = Orthogonal(3), SignedScaling(3)
    expected = signs.distance(signs.identity(), flip)
    assert expected.item() == pytest.approx(math.sqrt(2) * math.pi)
    torch.testing.assert_close(group.distance(group.identity(), torch.diag(flip)[None]), expected)


@pytest.mark.parametrize("gap", [1e-2, 1e-4, 1e-6])
def test_log_close_to_the_cut_locus(gap):
    group = Orthogonal(5)
    x = torch.zeros(group.shape, dtype=torch.float64)
    x[0, 0, 1], x[0, 2, 3] = math.pi - gap, 1.0
    x = x - x.mT
    q = group.random(1.0, torch.Generator().manual_seed(2))
    x = q @ x @ q.mT
    # eigenvectors of angles ±(π - gap) are told apart only up to eps/gap
    torch.testing.assert_close(group.log(group.exp(x)), x, rtol=0.0, atol=1e-14 / gap + 1e-12)


def test_log_of_repeated_angles():
    group = Orthogonal(6, batch=2)
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    g = torch.stack([torch.block_diag(quarter, quarter, quarter), torch.eye(6, dtype=torch.float64)])
    x = group.log(g)
    torch.testing.assert_close(x, torch.stack([torch.block_diag(*[quarter * math.pi / 2] * 3), 0 * g[1]]))


@pytest.mark.parametrize("fixes_ones", [False, True])
def test_exp_refuses_what_is_not_in_the_algebra(fixes_ones):
    group = Orthogonal(3, fixes_ones=fixes_ones)
    wrong = torch.ones(3, 3).triu(1)
    wrong = (wrong - wrong.mT if fixes_ones else wrong)[None]
    with pytest.raises(GroupError, match="Expected antisymmetric") as error:
        group.exp(wrong)
    assert group.symbol in str(error.value)


def test_random_rotations_are_orthogonal_to_rounding():
    """``torch.linalg.matrix_exp`` alone misses by 1e-11 for some angles of the plane."""
    group = Orthogonal(2, batch=20000)
    g = group.random(0.3, torch.Generator().manual_seed(0))
    assert float((g @ g.mT - torch.eye(2, dtype=torch.float64)).abs().max()) < 1e-14
