"""Anderson mixing against what it must do on linear maps."""

from __future__ import annotations

import torch

from gaugefix.slices.anderson import AndersonMixer


def contraction(n: int, rate: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A symmetric linear map with spectrum up to ``rate``, and a right-hand side."""
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    return q @ torch.diag(torch.linspace(-rate, rate, n, dtype=torch.float64)) @ q.mT, q[0]


def test_it_solves_a_small_linear_system_in_as_many_steps_as_it_has_dimensions() -> None:
    matrix, shift = contraction(5, 0.95)
    u, mixer = torch.zeros(5, dtype=torch.float64), AndersonMixer(depth=6)
    for _ in range(8):
        u = mixer.next(u, matrix @ u + shift)
    expected = torch.linalg.solve(torch.eye(5, dtype=torch.float64) - matrix, shift)
    assert (u - expected).norm() < 1e-9


def test_it_beats_the_plain_iteration_by_far() -> None:
    matrix, shift = contraction(40, 0.98)
    plain = mixed = torch.zeros(40, dtype=torch.float64)
    mixer = AndersonMixer()
    for _ in range(60):
        plain = matrix @ plain + shift
        mixed = mixer.next(mixed, matrix @ mixed + shift)
    expected = torch.linalg.solve(torch.eye(40, dtype=torch.float64) - matrix, shift)
    assert (mixed - expected).norm() < 1e-2 * (plain - expected).norm()


def test_a_fixed_point_stays() -> None:
    u, mixer = torch.ones(3, dtype=torch.float64), AndersonMixer()
    for _ in range(4):
        u = mixer.next(u, torch.ones(3, dtype=torch.float64))
    assert torch.equal(u, torch.ones(3, dtype=torch.float64))
