"""A family of diffeomorphisms of spacetime that fix both ends, to draw from."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from gaugefix.errors import DiffeomorphismError

Moves = Literal["time", "space", "both"]


class Ripple(nn.Module):
    """The identity and a sum of waves under a bump that vanishes on the end slices.

        ψ(z) = z + β(t) Σ_k c_k sin(a_k·z + φ_k),      z = (t, x),  β(t) = sin²(π (t − t₀)/(t₁ − t₀))

    The Jacobian of the sum is at most Σ_k |c_k| (|a_k| + π/(t₁ − t₀)) in norm, at every t. Where this is below 1, ψ is
    invertible on all of spacetime (identity plus contraction). It does not ensure D_tτ > 0: that depends on how fast
    the field is; with τ independent of x it is ensured. :class:`PushForward` checks it.

    Args:
        amplitudes: c, shape (waves, 1 + n), the first column for time.
        waves: a, shape (waves, 1 + n).
        phases: φ, shape (waves,).
        interval: t₀ and t₁.

    Raises:
        DiffeomorphismError: shapes that do not fit, an interval that is none, or a bound of 1 or more.

    Example:
        >>> ripple = Ripple.random(2, seed=0)
        >>> tau, xi = ripple(torch.tensor(1.0).double(), torch.ones(2).double())
        >>> bool((tau - 1).abs() < 1e-15), bool((xi - 1).abs().max() < 1e-15)
        (True, True)
    """

    amplitudes: Tensor
    waves: Tensor
    phases: Tensor

    def __init__(
        self, amplitudes: Tensor, waves: Tensor, phases: Tensor, interval: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        super().__init__()
        if waves.ndim != 2 or amplitudes.shape != waves.shape or phases.shape != waves.shape[:1]:
            raise DiffeomorphismError(
                "Expected shapes (waves, 1 + n), (waves, 1 + n) and (waves,) for amplitudes, waves and phases, got "
                f"{tuple(amplitudes.shape)}, {tuple(waves.shape)} and {tuple(phases.shape)}."
            )
        self.interval = _checked(interval)
        self.register_buffer("amplitudes", amplitudes)
        self.register_buffer("waves", waves)
        self.register_buffer("phases", phases)
        if not float(self.strength) < 1:
            raise DiffeomorphismError(
                f"Expected a bound below 1 on the slope of Ripple, got {float(self.strength):.3g}. "
                "Make amplitudes or waves smaller."
            )

    @classmethod
    def random(
        cls,
        n: int,
        strength: float = 0.5,
        *,
        moves: Moves = "both",
        waves: int = 3,
        interval: tuple[float, float] = (0.0, 1.0),
        seed: int | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> Ripple:
        """Draw one.

        Args:
            n: dimension of the state.
            strength: bound on the slope, 0 (the identity) to below 1.
            moves: ``"time"`` leaves x and ``"space"`` leaves t in place; either depends on both.
            waves: number of waves.
            interval: t₀ and t₁.
            seed: of the draw; by default the global generator is used.
            dtype: of the buffers.

        Raises:
            DiffeomorphismError: a strength outside [0, 1), or an unknown ``moves``.
        """
        if not 0 <= strength < 1:
            raise DiffeomorphismError(f"Expected a number in [0, 1) for strength, got {strength}. Stay below 1.")
        start, end = _checked(interval)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        draw = torch.randn(2, waves, 1 + n, generator=generator, dtype=torch.float64)
        phases = 2 * math.pi * torch.rand(waves, generator=generator, dtype=torch.float64)
        vectors = draw[0] / torch.tensor([end - start] + [1.0] * n, dtype=torch.float64)
        amplitudes = draw[1] * _mask(moves, n)
        bound = (amplitudes.norm(dim=1) * (vectors.norm(dim=1) + math.pi / (end - start))).sum()
        amplitudes = amplitudes * (strength / bound)
        return cls(amplitudes.to(dtype), vectors.to(dtype), phases.to(dtype), interval)

    @property
    def strength(self) -> Tensor:
        """The bound on the slope of ψ minus the identity, shape ()."""
        rate = math.pi / (self.interval[1] - self.interval[0])
        bound: Tensor = (self.amplitudes.norm(dim=1) * (self.waves.norm(dim=1) + rate)).sum()
        return bound

    def forward(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (τ, ξ), shapes () and (n,), for t of shape () and x of shape (n,)."""
        start, end = self.interval
        bump = torch.sin(math.pi * (t - start) / (end - start)).square()
        heights = torch.sin(self.waves[:, 0] * t + self.waves[:, 1:] @ x + self.phases)
        shift = bump * (heights @ self.amplitudes)
        return t + shift[0], x + shift[1:]


def _checked(interval: tuple[float, float]) -> tuple[float, float]:
    start, end = (float(value) for value in interval)
    if not start < end:
        raise DiffeomorphismError(f"Expected t0 < t1 for interval, got ({start}, {end}). Swap them.")
    return start, end


def _mask(moves: Moves, n: int) -> Tensor:
    masks = {"time": [1.0] + [0.0] * n, "space": [0.0] + [1.0] * n, "both": [1.0] * (1 + n)}
    if moves not in masks:
        raise DiffeomorphismError(f"Expected one of {', '.join(masks)} for moves, got {moves!r}.")
    return torch.tensor(masks[moves], dtype=torch.float64)
