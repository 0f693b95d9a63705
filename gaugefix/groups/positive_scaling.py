"""Positive scalings: what a positively homogeneous nonlinearity lets act on its units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gaugefix.errors import GroupError
from gaugefix.groups.base import DiagonalGroup


@final
@dataclass(frozen=True)
class PositiveScaling(DiagonalGroup):
    """Diagonal matrices with positive entries, g = diag(λ₁, …, λ_n).

    Elements λ and algebra vectors x = log λ have shape (n,). The distance ‖log a - log b‖ is a metric, invariant on
    both sides. Arises at ReLU, LeakyReLU, PReLU, max and average pooling
    (docs/concepts/gauge_groups.md; arXiv 2402.02362).

    Args:
        n: number of units.

    Raises:
        GroupError: n < 1.

    Example:
        >>> group = PositiveScaling(2)
        >>> group.act(torch.tensor([2.0, 0.5]), torch.ones(2, 3), axis=0)[:, 0]
        tensor([2.0000, 0.5000])

    """

    n: int

    def __post_init__(self) -> None:
        self._check_size("n", self.n)

    @property
    def symbol(self) -> str:
        return f"R+^{self.n}"

    @property
    def dimension(self) -> int:
        return self.n

    def inverse(self, a: Tensor) -> Tensor:
        return a.reciprocal()

    def exp(self, x: Tensor) -> Tensor:
        return x.exp()

    def log(self, a: Tensor) -> Tensor:
        self.check(a)
        return a.log()

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        distance: Tensor = (self.log(b) - self.log(a)).norm()
        return distance

    def random(
        self,
        scale: float,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
        discrete: bool = True,
    ) -> Tensor:
        device = generator.device if generator is not None else None
        return (scale * torch.randn(self.n, generator=generator, dtype=dtype, device=device)).exp()

    def factor(self, element: Tensor, power: int) -> Tensor:
        return element if power == 1 else element.pow(power)

    def charge(self, vectors: Sequence[Tensor], covectors: Sequence[Tensor]) -> Tensor:
        """Return q_i = Σ_vectors P_i² - Σ_covectors P_i², shape (n,), float64."""
        return self._signed_sum(lambda rows: rows.square().sum(0), vectors, covectors)

    def check(self, element: Tensor) -> None:
        self._check_shape("an element", element, self.shape)
        if not element.is_floating_point() or not bool(((element > 0) & element.isfinite()).all()):
            raise GroupError(
                f"Expected {self.n} positive finite factors for {self.symbol}, got {element.dtype} with "
                f"minimum {element.min().item()} and maximum {element.max().item()}. "
                "Use a SignedScaling for negative ones."
            )
