"""Translations: what softmax, or rows that sum to one, let act on what they are added to."""

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
class Translations(Group):
    """The additive group R^n: a·b is a + b, a leg with power +1 moves as P → P + a, with power -1 as P → P - a.

    Elements and algebra vectors have shape (n,) and are the same tensors; exp and log do nothing. The distance
    ‖a - b‖ is a metric, invariant on both sides. What stays unchanged is a sum v + c of a vector leg v and a covector
    leg c, not a contraction. Arises at key biases, at value bias → output bias, and at logits whose observable is the
    probability (docs/concepts/gauge_groups.md; arXiv 2402.02362).

    Args:
        n: number of entries.

    Raises:
        GroupError: n < 1.

    Example:
        >>> Translations(2).act(torch.tensor([1.0, 2.0]), torch.zeros(2), axis=0, power=-1)
        tensor([-1., -2.])

    """

    n: int

    def __post_init__(self) -> None:
        self._check_size("n", self.n)

    @property
    def symbol(self) -> str:
        return f"R^{self.n}"

    @property
    def dimension(self) -> int:
        return self.n

    @property
    def coordinates(self) -> int:
        return self.n

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n,)

    def identity(self, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> Tensor:
        return torch.zeros(self.n, dtype=dtype, device=device)

    def compose(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b

    def inverse(self, a: Tensor) -> Tensor:
        return -a

    def exp(self, x: Tensor) -> Tensor:
        return x.clone()

    def log(self, a: Tensor) -> Tensor:
        self.check(a)
        return a.clone()

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
        return scale * torch.randn(self.n, generator=generator, dtype=dtype, device=device)

    def act(self, element: Tensor, tensor: Tensor, axis: int, power: int = 1) -> Tensor:
        self._check_axis(tensor, axis)
        self._check_shape("an element", element, self.shape)
        if power not in (1, -1):
            raise GroupError(
                f"Expected power 1 or -1 for {self.symbol}, got {power}. Only diagonal groups have other powers."
            )
        shape = [1] * tensor.ndim
        shape[axis] = self.n
        moved: Tensor = tensor + power * element.reshape(shape)
        return moved.to(tensor.dtype)

    def charge(self, vectors: Sequence[Tensor], covectors: Sequence[Tensor]) -> Tensor:
        """Return q_i = Σ_vectors P_i - Σ_covectors P_i, summed over the other axes, shape (n,), float64.

        d/dt ½‖P + tx‖² = <x, P>: the charge is linear.
        """
        return self._signed_sum(lambda rows: rows.sum(0), vectors, covectors)

    def check(self, element: Tensor) -> None:
        self._check_shape("an element", element, self.shape)
        if not element.is_floating_point() or not bool(element.isfinite().all()):
            raise GroupError(
                f"Expected {self.n} finite floating-point entries for {self.symbol}, got {element.dtype} with "
                f"{int((~element.isfinite()).sum())} not finite. Mend the parameters that it was computed from."
            )
