"""Complex scalings: what rotary position embeddings leave of GL(2) on each of their planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from gaugefix.errors import GroupError
from gaugefix.groups.base import MatrixGroup


@final
@dataclass(frozen=True)
class ComplexScaling(MatrixGroup):
    """Products of a rotation and a positive scale, one per plane: the 2 by 2 matrices that commute with rotations.

    Elements have shape (batch, 2, 2); each matrix is

        g = [[x, -y], [y, x]] = r [[cos φ, -sin φ], [sin φ, cos φ]],      r > 0,

    the complex number x + iy = r e^{iφ} ≠ 0. Algebra vectors have the same shape and form, with (log r, φ) in the place
    of (x, y). As g⁻ᵀ = g/r², a covector turns like a vector and scales inversely. log is the principal one, φ in
    (-π, π), and raises on the negative real axis, where it is not unique. The group is abelian and connected, and

        d(a, b)² = 2 Σ (log r)² + φ²,      r e^{iφ} = a⁻¹b with φ in (-π, π],

    is a metric, invariant on both sides. The charge is that of the scale, ½ (tr A - tr B) times the unit matrix, A and
    B the second moments of vectors and covectors: a rotation leaves the norm alone.

    Arises at the q/k head axis behind rotary position embeddings (RoPE, arXiv 2104.09864), one plane per frequency
    (docs/concepts/gauge_groups.md).

    Args:
        batch: number of planes.

    Raises:
        GroupError: batch < 1.

    Example:
        >>> turn = torch.tensor([[[0.0, -2.0], [2.0, 0.0]]])
        >>> ComplexScaling().act(turn, torch.tensor([1.0, 0.0]), axis=0, power=-1)
        tensor([0.0000, 0.5000])

    """

    batch: int = 1
    n: int = field(default=2, init=False, repr=False)

    def __post_init__(self) -> None:
        self._check_size("batch", self.batch)

    @property
    def symbol(self) -> str:
        return "GL(1,C)" if self.batch == 1 else f"GL(1,C)^{self.batch}"

    @property
    def dimension(self) -> int:
        return 2 * self.batch

    def inverse(self, a: Tensor) -> Tensor:
        size = _norm(a)
        return a.mT / size / size

    def exp(self, x: Tensor) -> Tensor:
        self._check_shape("an algebra vector", x, self.shape)
        self._check_form("an algebra vector", x)
        size, angle = x[:, 0, 0].exp(), x[:, 1, 0]
        return _planes(size * angle.cos(), size * angle.sin())

    def log(self, a: Tensor) -> Tensor:
        """Return (log r, φ) as matrices, φ in (-π, π); raises :class:`GroupError` on the negative real axis."""
        self.check(a)
        cut = (a[:, 1, 0] == 0) & (a[:, 0, 0] < 0)
        if bool(cut.any()):
            raise GroupError(
                f"Expected an element off the negative real axis for the principal logarithm of {self.symbol}, got "
                f"angle π in plane {int(cut.nonzero()[0])}. Use a nearer element, or distance."
            )
        return _planes(*_polar(a))

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        self.check(a)
        self.check(b)
        size, angle = _polar(self.inverse(a) @ b)
        return (2.0 * (size.square() + angle.square()).sum()).sqrt()

    def random(
        self,
        scale: float,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
        discrete: bool = True,
    ) -> Tensor:
        """Draw log r and φ with deviation ``scale``; there is no discrete part."""
        device = generator.device if generator is not None else None
        z = scale * torch.randn(2, self.batch, generator=generator, dtype=torch.float64, device=device)
        return self.exp(_planes(z[0], z[1])).to(dtype)

    def matrix(self, element: Tensor, power: int) -> Tensor:
        self._check_power(power)
        return element if power == 1 else self.inverse(element).mT

    def charge(self, vectors: Sequence[Tensor], covectors: Sequence[Tensor]) -> Tensor:
        """Return ½ (Σ_vectors |P|² - Σ_covectors |P|²) times the unit matrix per plane, (batch, 2, 2), float64."""

        def half_trace(rows: Tensor) -> Tensor:
            half = 0.5 * rows.reshape(-1, self.batch, 2).square().sum((0, 2))
            return _planes(half, torch.zeros_like(half))

        return self._signed_sum(half_trace, vectors, covectors)

    def check(self, element: Tensor) -> None:
        self._check_matrices(element)
        self._check_form("an element", element)
        if not bool((element.abs().amax((-2, -1)) > 0).all()):
            raise GroupError(
                f"Expected nonzero planes for {self.symbol}, got {int((element == 0).all(-1).all(-1).sum())} planes of "
                "zeros. Leave dead planes out of the group."
            )

    def _check_form(self, what: str, matrices: Tensor) -> None:
        defect = torch.maximum(
            (matrices[:, 0, 0] - matrices[:, 1, 1]).abs(), (matrices[:, 0, 1] + matrices[:, 1, 0]).abs()
        )
        if not bool((defect <= 100 * torch.finfo(matrices.dtype).eps * matrices.abs().amax((-2, -1))).all()):
            raise GroupError(
                f"Expected {what} of the form [[x, -y], [y, x]] per plane for {self.symbol}, got a defect of "
                f"{defect.max():.1e}. Average the two diagonals first."
            )


def _planes(x: Tensor, y: Tensor) -> Tensor:
    """[[x, -y], [y, x]], (batch, 2, 2)."""
    return torch.stack([torch.stack([x, -y], -1), torch.stack([y, x], -1)], -2)


def _norm(a: Tensor) -> Tensor:
    """R = |x + iy|, (batch, 1, 1)."""
    return torch.hypot(a[:, 0, 0], a[:, 1, 0])[:, None, None]


def _polar(a: Tensor) -> tuple[Tensor, Tensor]:
    """Log r and φ, (batch,) each."""
    return torch.hypot(a[:, 0, 0], a[:, 1, 0]).log(), torch.atan2(a[:, 1, 0], a[:, 0, 0])
