"""The principal logarithm against closed forms and a peer."""

import math

import pytest
import torch

from gaugefix.errors import GroupError
from gaugefix.groups.principal_log import principal_log


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("n", [1, 2, 16, 64])
def test_positive_definite_with_a_large_condition_number(n):
    q, _ = torch.linalg.qr(normal(2, n, n, seed=n))
    values = torch.logspace(-4, 4, n, dtype=torch.float64)
    x = principal_log((q * values) @ q.mT, "GL")
    torch.testing.assert_close(x, (q * values.log()) @ q.mT, rtol=0.0, atol=1e-16 * n * values[-1] / values[0] + 1e-12)
    assert torch.equal(x, x.mT) or (x - x.mT).abs().max() < 1e-12


@pytest.mark.parametrize("n", [2, 3, 5])
def test_jordan_block(n):
    # log(λ + N) = log λ + N/λ - (N/λ)²/2 + …, a matrix without a basis of eigenvectors
    lam, shift = 0.5, torch.eye(n, dtype=torch.float64).roll(1, 1).triu(1)
    terms = [-((-1.0) ** k) / k * torch.linalg.matrix_power(shift / lam, k) for k in range(1, n)]
    expected = math.log(lam) * torch.eye(n, dtype=torch.float64) + sum(terms)
    x = principal_log((lam * torch.eye(n, dtype=torch.float64) + shift)[None], "GL")[0]
    torch.testing.assert_close(x, expected, rtol=1e-11, atol=1e-11)


def test_blocks_do_not_disturb_each_other():
    shear = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    blocks = torch.stack([shear, torch.linalg.matrix_exp(normal(2, 2, seed=0)), torch.eye(2, dtype=torch.float64)])
    together = principal_log(blocks, "GL")
    for block, x in zip(blocks, together, strict=True):
        torch.testing.assert_close(principal_log(block[None], "GL")[0], x, rtol=1e-12, atol=1e-12)


def test_peer():
    linalg = pytest.importorskip("scipy.linalg")
    a = torch.linalg.matrix_exp(normal(1, 12, 12, seed=3) / 4)
    torch.testing.assert_close(principal_log(a, "GL")[0], torch.from_numpy(linalg.logm(a[0].numpy())))


def test_single_precision_is_kept():
    a = torch.linalg.matrix_exp(normal(3, 4, 4, seed=4) / 4)
    x = principal_log(a.float(), "GL")
    assert x.dtype == torch.float32
    torch.testing.assert_close(x, principal_log(a, "GL").float(), rtol=1e-5, atol=1e-5)


def test_the_message_names_the_group_and_the_block():
    good, bad = torch.eye(3), torch.diag(torch.tensor([1.0, -1.0, 1.0]))
    with pytest.raises(GroupError, match=r"GL\(3\)\^3.*block 1"):
        principal_log(torch.stack([good, bad, good]), "GL(3)^3")
