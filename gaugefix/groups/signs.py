"""Signs: what an odd activation lets act on its units."""

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
class Signs(DiagonalGroup):
    """Diagonal matrices with entries ±1, g = diag(s₁, …, s_n); an odd map f has f(gx) = g f(x).

    Elements are floating-point tensors of shape (n,). The group is discrete: the algebra is zero-dimensional (vectors
    of shape (0,)), exp gives only the identity, log exists only there, and there is no charge. The distance is the one
    that :class:`SignedScaling` gives its subgroup, π·sqrt(#{i : a_i ≠ b_i}): the root of the Hamming metric, hence
    a metric, invariant on both sides. Arises at tanh, erf and sin (docs/concepts/gauge_groups.md; arXiv 2402.02362).

    Args:
        n: number of units.

    Raises:
        GroupError: n < 1.

    Example:
        >>> Signs(2).act(torch.tensor([-1.0, 1.0]), torch.ones(2, 3), axis=0)[:, 0]
        tensor([-1.,  1.])

    """

    n: int

    def __post_init__(self) -> None:
        self._check_size("n", self.n)

    @property
    def symbol(self) -> str:
        return f"Z2^{self.n}"

    @property
    def dimension(self) -> int:
        return 0

    def inverse(self, a: Tensor) -> Tensor:
        return a.clone()

    def exp(self, x: Tensor) -> Tensor:
        self._check_shape("an algebra vector", x, (0,))
        return self.identity(x.dtype, x.device)

    def log(self, a: Tensor) -> Tensor:
        """Return the empty vector at the identity; raises :class:`GroupError` elsewhere."""
        self.check(a)
        if bool((a < 0).any()):
            raise GroupError(
                f"Expected the identity for the logarithm of {self.symbol}, got {int((a < 0).sum())} negative signs. "
                "A discrete group has no other logarithm; use distance."
            )
        return a.new_zeros(0)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        self.check(a)
        self.check(b)
        return math.pi * (a != b).to(a.dtype).sum().sqrt()

    def random(
        self,
        scale: float,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
        discrete: bool = True,
    ) -> Tensor:
        """Draw uniform signs, whatever ``scale``."""
        device = generator.device if generator is not None else None
        return 2 * torch.randint(2, (self.n,), generator=generator, device=device).to(dtype) - 1

    def factor(self, element: Tensor, power: int) -> Tensor:
        return element if power % 2 else torch.ones_like(element)

    def charge(self, vectors: Sequence[Tensor], covectors: Sequence[Tensor]) -> Tensor:
        """Return an empty float64 tensor: no generator, no charge."""
        return self._signed_sum(lambda rows: rows.new_zeros(0), vectors, covectors)

    def check(self, element: Tensor) -> None:
        self._check_shape("an element", element, self.shape)
        if not element.is_floating_point() or not bool((element.abs() == 1).all()):
            raise GroupError(
                f"Expected {self.n} floating-point factors of +1 or -1 for {self.symbol}, got {element.dtype} with "
                f"{int((element.abs() != 1).sum())} others. Use element.sign() or a SignedScaling."
            )
