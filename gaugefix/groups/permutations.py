"""Permutations: what any elementwise map lets act on its units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gaugefix.errors import GroupError
from gaugefix.groups.base import Group


@final
@dataclass(frozen=True)
class Permutations(Group):
    """The symmetric group S_n, (g·x)_i = x[p_i].

    Elements are index tensors p of shape (n,), int64. From the formula, ((ab)·x)_i = (b·x)[a_i] = x[b[a_i]], so
    ab is b[a], and p⁻¹ is argsort(p). Permutation matrices are orthogonal with entries 0 and 1: vectors, covectors
    and all elementwise powers permute alike, and ``power`` is ignored. The group is discrete: algebra vectors have
    shape (0,), exp gives only the identity, log exists only there, and there is no charge. The distance
    sqrt(#{i : a_i ≠ b_i}) is the root of the Hamming metric, hence a metric, invariant on both sides; it is the
    Frobenius distance of the matrices divided by sqrt(2). Arises at hidden units, heads and experts
    (docs/concepts/gauge_groups.md; arXiv 2402.02362).

    Args:
        n: number of units.

    Raises:
        GroupError: n < 1.

    Example:
        >>> Permutations(3).act(torch.tensor([2, 0, 1]), torch.tensor([10.0, 11.0, 12.0]), axis=0)
        tensor([12., 10., 11.])

    """

    n: int

    def __post_init__(self) -> None:
        self._check_size("n", self.n)

    @property
    def symbol(self) -> str:
        return f"S_{self.n}"

    @property
    def dimension(self) -> int:
        return 0

    @property
    def coordinates(self) -> int:
        return self.n

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n,)

    def identity(self, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> Tensor:
        """Return 0, …, n-1 as int64; ``dtype`` is ignored, for indices have only one."""
        return torch.arange(self.n, device=device)

    def compose(self, a: Tensor, b: Tensor) -> Tensor:
        return b[a]

    def inverse(self, a: Tensor) -> Tensor:
        return a.argsort()

    def exp(self, x: Tensor) -> Tensor:
        self._check_shape("an algebra vector", x, (0,))
        return self.identity(device=x.device)

    def log(self, a: Tensor) -> Tensor:
        """Return the empty vector at the identity; raises :class:`GroupError` elsewhere."""
        self.check(a)
        moved = int((a != self.identity(device=a.device)).sum())
        if moved:
            raise GroupError(
                f"Expected the identity for the logarithm of {self.symbol}, got {moved} moved points. "
                "A discrete group has no other logarithm; use distance."
            )
        return torch.zeros(0, dtype=torch.float64, device=a.device)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        self.check(a)
        self.check(b)
        return (a != b).sum().double().sqrt()

    def random(
        self,
        scale: float,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
        discrete: bool = True,
    ) -> Tensor:
        """Draw a uniform permutation, whatever ``scale`` and ``dtype``."""
        device = generator.device if generator is not None else None
        return torch.randperm(self.n, generator=generator, device=device)

    def act(self, element: Tensor, tensor: Tensor, axis: int, power: int = 1) -> Tensor:
        self._check_axis(tensor, axis)
        self._check_shape("an element", element, self.shape)
        return tensor.index_select(axis, element)

    def charge(self, vectors: Sequence[Tensor], covectors: Sequence[Tensor]) -> Tensor:
        """Return an empty float64 tensor: no generator, no charge."""
        return self._signed_sum(lambda rows: rows.new_zeros(0), vectors, covectors)

    def check(self, element: Tensor) -> None:
        self._check_shape("an element", element, self.shape)
        if element.dtype != torch.int64 or not torch.equal(element.sort().values, self.identity(device=element.device)):
            raise GroupError(
                f"Expected each of 0, …, {self.n - 1} once, as int64, for {self.symbol}, got {element.dtype} with "
                f"{int((element.sort().values.diff() == 0).sum())} repeated entries from {element.min().item()} to "
                f"{element.max().item()}. Use torch.randperm or argsort."
            )
