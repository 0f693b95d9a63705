"""Orthogonal groups: what a residual stream lets act whose norms have their gains absorbed."""

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
class Orthogonal(MatrixGroup):
    """Matrices with gᵀg = 1, one per block, optionally with g·(1, …, 1)ᵀ = (1, …, 1)ᵀ; vectors and covectors agree.

    Elements have shape (batch, n, n), algebra vectors are antisymmetric of that shape (with rows that sum to zero for
    ``fixes_ones``, a copy of O(n-1)). Each block has two components, det g = ±1; exp reaches det g = +1. log is the
    principal one: it raises for det g = -1, and on the cut locus (eigenvalue -1) where it is not unique. With the
    eigenangles θ_i in (-π, π] of all blocks of a⁻¹b, the distance

        d(a, b)² = Σ_i θ_i²

    is the geodesic distance of the unitary group that contains O(n): a metric on all components, invariant on both
    sides, equal to ‖log(a⁻¹b)‖_F wherever log exists; a reflection is π away from the identity.

    **The charge is zero.** The invariance ⟨XP, ∂L/∂P⟩ = 0 says ⟨XP, dP/dt⟩ = 0 along gradient flow. For symmetric X
    this is d/dt ½⟨XP, P⟩ = 0, a conserved charge. For antisymmetric X, ⟨XP, P⟩ vanishes identically and the form
    ⟨XP, dP⟩ (an angular momentum) is not exact: a constraint on velocities, no conserved quantity. Nor does
    the group change the norm, so that the moment map is zero.

    Arises at RMSNorm, and with ``fixes_ones`` at LayerNorm (docs/concepts/gauge_groups.md; arXiv 2402.02362).

    Args:
        n: size of a block.
        batch: number of blocks.
        fixes_ones: only the subgroup that keeps the vector of ones.

    Raises:
        GroupError: n < 1 or batch < 1.

    Example:
        >>> quarter = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])
        >>> Orthogonal(2).act(quarter, torch.tensor([1.0, 0.0]), axis=0)
        tensor([0., 1.])

    """

    n: int
    batch: int = 1
    fixes_ones: bool = False

    def __post_init__(self) -> None:
        self._check_size("n", self.n)
        self._check_size("batch", self.batch)

    @property
    def symbol(self) -> str:
        one = f"O({self.n})_1" if self.fixes_ones else f"O({self.n})"
        return one if self.batch == 1 else f"{one}^{self.batch}"

    @property
    def dimension(self) -> int:
        n = self.n - 1 if self.fixes_ones else self.n
        return self.batch * n * (n - 1) // 2

    def inverse(self, a: Tensor) -> Tensor:
        return a.mT.contiguous()

    def exp(self, x: Tensor) -> Tensor:
        self._check_shape("an algebra vector", x, self.shape)
        defect = (x + x.mT).abs().max()
        if self.fixes_ones:
            defect = torch.maximum(defect, x.sum(-1).abs().max())
        if not bool(defect <= self._tolerance(x.dtype) * (1 + x.abs().max())):
            kind = "antisymmetric matrices with zero row sums" if self.fixes_ones else "antisymmetric matrices"
            raise GroupError(f"Expected {kind} for {self.symbol}, got a defect of {defect:.1e}. Project x first.")
        element: Tensor = torch.linalg.matrix_exp(x.double())
        # The exponential of a small matrix is off by up to 1e-11; one Newton-Schulz step makes it orthogonal again.
        element = 1.5 * element - 0.5 * element @ element.mT @ element
        return element.to(x.dtype)

    def log(self, a: Tensor) -> Tensor:
        """Return the antisymmetric principal logarithm; raises :class:`GroupError` at an eigenvalue -1."""
        self.check(a)
        return self._project(principal_log(a, self.symbol))

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        self.check(a)
        self.check(b)
        distance: Tensor = torch.linalg.eigvals(a.mT @ b).angle().norm()
        return distance

    def random(
        self,
        scale: float,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
        discrete: bool = True,
    ) -> Tensor:
        """Draw exp(X), X antisymmetric with deviation ``scale``, in half of the blocks times a random reflection."""
        device = generator.device if generator is not None else None
        z = torch.randn(self.shape, generator=generator, dtype=torch.float64, device=device)
        mirror = torch.randn(self.batch, self.n, 1, generator=generator, dtype=torch.float64, device=device)
        flips = discrete * torch.randint(2, (self.batch, 1, 1), generator=generator, device=device).double()
        for _ in range(2):  # what cancels in a mean leaves rounding errors, which the second time are small
            if self.fixes_ones:
                mirror = mirror - mirror.mean(-2, keepdim=True)
            # for n = 1 nothing but the identity fixes the ones: the mirror is zero and must stay so
            mirror = mirror / torch.linalg.vector_norm(mirror, dim=-2, keepdim=True).clamp_min(1e-300)
        rotation = self.exp(self._project(2**0.5 * scale * z))
        reflected: Tensor = rotation - 2 * flips * (rotation @ mirror) @ mirror.mT
        return reflected.to(dtype)

    def matrix(self, element: Tensor, power: int) -> Tensor:
        self._check_power(power)
        return element

    def charge(self, vectors: Sequence[Tensor], covectors: Sequence[Tensor]) -> Tensor:
        """Return zeros of shape (batch, n, n), float64: antisymmetric generators have no conserved moment."""
        return self._signed_sum(lambda rows: rows.new_zeros(self.shape), vectors, covectors)

    def check(self, element: Tensor) -> None:
        self._check_matrices(element)
        one = self.identity(element.dtype, element.device)
        defect = (element.mT @ element - one).abs().max()
        if self.fixes_ones:
            defect = torch.maximum(defect, (element.sum(-1) - 1).abs().max())
        if not bool(defect <= self._tolerance(element.dtype)):
            kind = "orthogonal matrices that fix the ones" if self.fixes_ones else "orthogonal matrices"
            raise GroupError(f"Expected {kind} for {self.symbol}, got a defect of {defect:.1e}. Use a polar factor.")

    def _project(self, x: Tensor) -> Tensor:
        """Return the nearest algebra vector."""
        x = (x - x.mT) / 2
        if self.fixes_ones:
            x = x - x.mean(-1, keepdim=True)
            x = x - x.mean(-2, keepdim=True)
        return x

    def _tolerance(self, dtype: torch.dtype) -> float:
        return 100 * self.n * torch.finfo(dtype).eps
