"""General linear groups: what an axis lets act that only meets linear maps and contractions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gaugefix.errors import GroupError
from gaugefix.groups.base import MatrixGroup
from gaugefix.groups.principal_log import principal_log


@final
@dataclass(frozen=True)
class GeneralLinear(MatrixGroup):
    """Invertible matrices, one per block: vectors P → gP, covectors P → g⁻ᵀP, so that PᵀP' is unchanged.

    Elements and algebra vectors have shape (batch, n, n). log is the real principal one and raises where there is
    none (an eigenvalue on the negative real axis; det g < 0 in particular). The distance d(a, b) = ‖log(a⁻¹b)‖_F is
    left-invariant and symmetric, and zero only at a = b. It is the length of one curve, the one-parameter subgroup
    from a to b. That curve is a geodesic of the left-invariant Riemannian metric only if log(a⁻¹b) is normal; so the
    triangle inequality holds along one-parameter subgroups (with equality) and for commuting normal elements, but in
    general it may fail, by a term of third order in the distances. Arises at the q/k head axis without RoPE, the
    v/o head axis, LoRA rank and linear bottlenecks (docs/concepts/gauge_groups.md; arXiv 2402.02362).

    Args:
        n: size of a block.
        batch: number of blocks, e.g. heads.

    Raises:
        GroupError: n < 1 or batch < 1.

    Example:
        >>> g = torch.tensor([[[1.0, 1.0], [0.0, 1.0]]])
        >>> GeneralLinear(2).act(g, torch.eye(2), axis=0, power=-1)
        tensor([[ 1.,  0.],
                [-1.,  1.]])

    """

    n: int
    batch: int = 1

    def __post_init__(self) -> None:
        self._check_size("n", self.n)
        self._check_size("batch", self.batch)

    @property
    def symbol(self) -> str:
        return f"GL({self.n})" if self.batch == 1 else f"GL({self.n})^{self.batch}"

    @property
    def dimension(self) -> int:
        return self.batch * self.n**2

    def inverse(self, a: Tensor) -> Tensor:
        inverse: Tensor = torch.linalg.inv(a)
        return inverse

    def exp(self, x: Tensor) -> Tensor:
        self._check_shape("an algebra vector", x, self.shape)
        element: Tensor = torch.linalg.matrix_exp(x.double())
        return element.to(x.dtype)

    def log(self, a: Tensor) -> Tensor:
        """Return the real principal logarithm; raises :class:`GroupError` where there is none."""
        self.check(a)
        return principal_log(a, self.symbol)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        self.check(a)
        self.check(b)
        distance: Tensor = principal_log(torch.linalg.solve(a, b), self.symbol).norm()
        return distance

    def random(
        self,
        scale: float,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
        discrete: bool = True,
    ) -> Tensor:
        """Draw exp(scale · Z / sqrt(n)), Z standard normal: det > 0, and a condition number that n does not drive."""
        device = generator.device if generator is not None else None
        z = torch.randn(self.shape, generator=generator, dtype=torch.float64, device=device)
        return self.exp(scale / self.n**0.5 * z).to(dtype)

    def matrix(self, element: Tensor, power: int) -> Tensor:
        self._check_power(power)
        return element if power == 1 else self.inverse(element).mT

    def charge(self, vectors: Sequence[Tensor], covectors: Sequence[Tensor]) -> Tensor:
        """Return C = Σ_vectors PPᵀ - Σ_covectors PPᵀ per block, shape (batch, n, n), float64.

        d/dt ½‖exp(tX)P‖² = tr(Xᵀ PPᵀ), and the covector exp(-tXᵀ)P gives the opposite sign. C is symmetric:
        antisymmetric generators have no charge (see :class:`Orthogonal`).
        """

        def second_moment(rows: Tensor) -> Tensor:
            blocks = rows.reshape(-1, self.batch, self.n).transpose(0, 1)
            return blocks.mT @ blocks

        return self._signed_sum(second_moment, vectors, covectors)

    def check(self, element: Tensor) -> None:
        self._check_matrices(element)
        singular = torch.linalg.svdvals(element)
        smallest, largest = singular[:, -1], singular[:, 0]
        if not bool((smallest > self.n * torch.finfo(element.dtype).eps * largest).all()):
            raise GroupError(
                f"Expected invertible matrices for {self.symbol}, got a condition number of "
                f"{(largest / smallest).max().item():.1e} in {element.dtype}. Leave rank-deficient blocks alone."
            )
