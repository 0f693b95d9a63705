"""Permutations against their matrices, and uniform draws."""

import itertools

import torch

from gaugefix.groups import Permutations


def matrix(p):
    return torch.eye(len(p), dtype=torch.float64)[p]


def test_agrees_with_permutation_matrices():
    group, x = Permutations(3), torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64)
    everything = [torch.tensor(p) for p in itertools.permutations(range(3))]
    for a, b in itertools.product(everything, everything):
        assert torch.equal(matrix(group.compose(a, b)), matrix(a) @ matrix(b))
        assert torch.equal(matrix(group.inverse(a)), matrix(a).mT)
        assert torch.equal(group.act(a, x, 0, -1), matrix(a) @ x)
        torch.testing.assert_close(2**0.5 * group.distance(a, b), (matrix(a) - matrix(b)).norm())


def test_every_power_permutes_alike():
    group, x = Permutations(4), torch.arange(4.0)
    p = torch.tensor([2, 0, 3, 1])
    for power in (-2, -1, 1, 2):
        assert torch.equal(group.act(p, x, 0, power), x[p])


def test_draws_are_uniform():
    generator = torch.Generator().manual_seed(0)
    draws = [tuple(Permutations(3).random(0.0, generator).tolist()) for _ in range(1200)]
    counts = [draws.count(p) for p in itertools.permutations(range(3))]
    assert sum((count - 200) ** 2 / 200 for count in counts) < 20.5  # chi squared, five degrees, p = 0.001
