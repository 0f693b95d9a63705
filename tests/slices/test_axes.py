"""Principal axes: diagonal and decreasing; where entries coincide, as near to the unit matrix as can be."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gaugefix.slices.axes import helmert, principal_axes, within_ones

EPS = 2.0**-52


def turned(values, seed):
    n = len(values)
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
    return q @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ q.T


@settings(max_examples=40)
@given(values=st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]), min_size=1, max_size=6), seed=st.integers(0, 2**31))
def test_the_moment_becomes_diagonal_and_decreases(values, seed):
    s = turned(values, seed)
    q = principal_axes(s[None], EPS)[0]
    torch.testing.assert_close(q @ q.T, torch.eye(len(values), dtype=torch.float64), rtol=0, atol=1e-12)
    expected = torch.diag(torch.tensor(sorted(values, reverse=True), dtype=torch.float64))
    torch.testing.assert_close(q @ s @ q.T, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [3.0, 1.0, 1.0], [2.0, 2.0, 0.0], [3.0, 3.0, 1.0, 1.0]])
def test_axes_that_are_not_determined_stay(values):
    s = torch.diag(torch.tensor(values, dtype=torch.float64))
    noise = 1e-17 * turned([1.0] * (len(values) - 1) + [2.0], 0)
    for moment in (s, s + noise + noise.T):
        q = principal_axes(moment[None], EPS)[0]
        torch.testing.assert_close(q, torch.eye(len(values), dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_turn_inside_a_cluster_is_the_smallest():
    """Among all rotations that order the clusters, ours has the largest trace."""
    s = turned([3.0, 1.0, 1.0], 4)
    q = principal_axes(s[None], EPS)[0]
    for angle in torch.linspace(0.1, 6.2, 20, dtype=torch.float64):
        c, d = float(angle.cos()), float(angle.sin())
        other = torch.tensor([[1.0, 0.0, 0.0], [0.0, c, -d], [0.0, d, c]], dtype=torch.float64) @ q
        torch.testing.assert_close(other @ s @ other.T, torch.diag(torch.tensor([3.0, 1.0, 1.0]).double()))
        assert float(other.trace()) <= float(q.trace()) + 1e-12


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_helmert_basis_is_orthonormal_and_ends_in_the_ones(n):
    basis = helmert(n)
    torch.testing.assert_close(basis.T @ basis, torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(basis[:, -1], torch.full((n,), n**-0.5, dtype=torch.float64))


def test_the_ones_are_kept_where_they_must():
    s = turned([5.0, 3.0, 2.0, 1.0], 1)
    q = within_ones(s[None], EPS, fixes_ones=True)[0]
    torch.testing.assert_close(q @ torch.ones(4).double(), torch.ones(4).double(), rtol=0, atol=1e-12)
    basis = helmert(4)
    inner = (basis.T @ q @ s @ q.T @ basis)[:3, :3]
    torch.testing.assert_close(inner, torch.diag(inner.diagonal()), rtol=0, atol=1e-12)
    assert bool((inner.diagonal().diff() < 0).all())
