"""Signed scalings: what an axis that is only multiplied elementwise, or by affine gains, lets act."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gaugefix.errors import GroupError
from gaugefix.groups.base import DiagonalGroup


@final
@dataclass(frozen=True)
class SignedScaling(DiagonalGroup):
    """Diagonal matrices with nonzero entries, g = diag(λ₁, …, λ_n).

    Elements λ and algebra vectors x have shape (n,). There are 2ⁿ components, one per pattern of signs; exp reaches
    only the identity component (all λ > 0), and log raises on the others. The distance

        d(a, b)² = ‖log|a/b|‖² + π² · #{i : a_i b_i < 0}

    is the norm of the *complex* principal logarithm of a⁻¹b. It is a product of metrics, so it is a metric on the
    whole group, invariant on both sides. Arises between a norm gain and the next linear map, and between the
    up- and down-projections of SwiGLU (docs/concepts/gauge_groups.md; arXiv 2402.02362).

    Args:
        n: number of units.

    Raises:
        GroupError: n < 1.

    Example:
        >>> group = SignedScaling(2)
        >>> group.act(torch.tensor([-2.0, 0.5]), torch.ones(2, 3), axis=0, power=-1)[:, 0]
        tensor([-0.5000,  2.0000])

    """

    n: int

    def __post_init__(self) -> None:
        self._check_size("n", self.n)

    @property
    def symbol(self) -> str:
        return f"R*^{self.n}"

    @property
    def dimension(self) -> int:
        return self.n

    def inverse(self, a: Tensor) -> Tensor:
        return a.reciprocal()

    def exp(self, x: Tensor) -> Tensor:
        return x.exp()

    def log(self, a: Tensor) -> Tensor:
        """Return log λ on the identity component; raises :class:`GroupError` where a factor is negative."""
        self.check(a)
        if bool((a < 0).any()):
            raise GroupError(
                f"Expected an element of the identity component for the logarithm of {self.symbol}, got "
                f"{int((a < 0).sum())} negative factors. Split off the signs first."
            )
        return a.log()

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        self.check(a)
        self.check(b)
        flips = (a.sign() != b.sign()).to(a.dtype)
        return ((b.abs().log() - a.abs().log()).square() + math.pi**2 * flips).sum().sqrt()

    def random(
        self,
        scale: float,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
        discrete: bool = True,
    ) -> Tensor:
        """Draw lognormal magnitudes with deviation ``scale`` and uniform signs."""
        device = generator.device if generator is not None else None
        magnitude = (scale * torch.randn(self.n, generator=generator, dtype=dtype, device=device)).exp()
        flips = torch.randint(2, (self.n,), generator=generator, device=device, dtype=torch.bool)
        return torch.where(flips & discrete, -magnitude, magnitude)

    def factor(self, element: Tensor, power: int) -> Tensor:
        return element if power == 1 else element.pow(power)

    def charge(self, vectors: Sequence[Tensor], covectors: Sequence[Tensor]) -> Tensor:
        """Return q_i = Σ_vectors P_i² - Σ_covectors P_i², shape (n,), float64."""
        return self._signed_sum(lambda rows: rows.square().sum(0), vectors, covectors)

    def check(self, element: Tensor) -> None:
        self._check_shape("an element", element, self.shape)
        if not element.is_floating_point() or not bool(((element != 0) & element.isfinite()).all()):
            raise GroupError(
                f"Expected {self.n} nonzero finite factors for {self.symbol}, got {element.dtype} with smallest "
                f"magnitude {element.abs().min().item()} and largest {element.abs().max().item()}. "
                "Leave dead units out of the group."
            )
