"""What every Lie group in gaugefix can do.

A group object is frozen data (its size); elements and algebra vectors are plain tensors, so that they can be
saved, moved and batched. Two families cover all but permutations and translations:

* ``DiagonalGroup``: an element is one number per coordinate and multiplies entries;
* ``MatrixGroup``: an element is a batch of square matrices and mixes the coordinates of a block.

``power`` says how a tensor transforms: ``+1`` as a vector (P -> gP), ``-1`` as a covector (P -> g^{-T}P),
``k`` as the k-th power of the diagonal factor (diagonal groups only).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gaugefix.errors import GroupError


@dataclass(frozen=True)
class Group(ABC):
    """A Lie group (or a discrete one, of dimension 0) acting on ``coordinates`` entries of a tensor axis."""

    @property
    @abstractmethod
    def symbol(self) -> str:
        """Short name for tables, e.g. ``"GL(64)^12"``."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Number of continuous parameters; 0 for a discrete group."""

    @property
    @abstractmethod
    def coordinates(self) -> int:
        """Number of coordinates (axis entries) that an element acts on."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of an element."""

    @abstractmethod
    def identity(self, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> Tensor:
        """Return e."""

    @abstractmethod
    def compose(self, a: Tensor, b: Tensor) -> Tensor:
        """Return a·b: act with b first, then with a."""

    @abstractmethod
    def inverse(self, a: Tensor) -> Tensor:
        """Return a⁻¹."""

    @abstractmethod
    def exp(self, x: Tensor) -> Tensor:
        """Map an algebra vector (shape of :meth:`log`; (0,) for a discrete group) to an element."""

    @abstractmethod
    def log(self, a: Tensor) -> Tensor:
        """Return x with exp(x) = a; raises :class:`GroupError` where there is no principal x."""

    @abstractmethod
    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Return a left-invariant distance as a scalar tensor: ‖log(a⁻¹b)‖_F wherever the logarithm exists."""

    @abstractmethod
    def random(
        self,
        scale: float,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
        discrete: bool = True,
    ) -> Tensor:
        """Draw an element whose algebra coordinates have standard deviation ``scale`` (discrete parts uniform).

        The element lies on the device of ``generator``; without ``discrete`` it lies in the identity component (a
        group of dimension 0 has but one such element and ignores the argument).
        """

    @abstractmethod
    def act(self, element: Tensor, tensor: Tensor, axis: int, power: int = 1) -> Tensor:
        """Act on ``tensor`` along ``axis``, whose size is ``coordinates``. Returns a new tensor of the same dtype."""

    @abstractmethod
    def charge(self, vectors: Sequence[Tensor], covectors: Sequence[Tensor]) -> Tensor:
        """Return the Noether charge of tensors whose *last* axis carries the group.

        The charge q is the moment map of half the squared norm, <q, x> = d/dt ½Σ‖exp(tx)·P‖² at t = 0: the second
        moments of the vectors minus those of the covectors (q_i = in_i - out_i; C = Σ PPᵀ - Σ PPᵀ), for a
        translation the first moments. Gradient flow conserves it (docs/noether.md). It is a difference
        of large numbers, so it is summed and returned in float64, on the device of the first tensor.
        """

    @abstractmethod
    def check(self, element: Tensor) -> None:
        """Raise :class:`GroupError` if ``element`` is not in the group."""

    def _check_size(self, argument: str, value: int) -> None:
        if value < 1:
            raise GroupError(
                f"Expected a positive {argument} for {type(self).__name__}, got {argument}={value}. Give at least 1."
            )

    def _check_axis(self, tensor: Tensor, axis: int) -> None:
        if not -tensor.ndim <= axis < tensor.ndim or tensor.shape[axis] != self.coordinates:
            raise GroupError(
                f"Expected axis {axis} of size {self.coordinates} for {self.symbol}, got shape {tuple(tensor.shape)}. "
                "Act on the axis that carries the group."
            )

    def _check_shape(self, what: str, value: Tensor, shape: tuple[int, ...]) -> None:
        if tuple(value.shape) != shape:
            raise GroupError(
                f"Expected {what} of shape {shape} for {self.symbol}, got shape {tuple(value.shape)}. "
                "Use tensors that this very group made."
            )

    def _signed_sum(
        self, moment: Callable[[Tensor], Tensor], vectors: Sequence[Tensor], covectors: Sequence[Tensor]
    ) -> Tensor:
        """Return Σ_vectors moment - Σ_covectors moment; ``moment`` maps (rows, coordinates) float64 to a charge."""
        device = next((p.device for p in (*vectors, *covectors)), torch.device("cpu"))
        total = moment(torch.zeros(0, self.coordinates, dtype=torch.float64, device=device))
        for sign, tensors in ((1.0, vectors), (-1.0, covectors)):
            for p in tensors:
                self._check_axis(p, -1)
                total = total + sign * moment(p.to(device, torch.float64).reshape(-1, self.coordinates))
        return total


class DiagonalGroup(Group):
    """A group of diagonal matrices: an element is a tensor of shape (n,)."""

    n: int

    @property
    def coordinates(self) -> int:
        return self.n

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n,)

    def identity(self, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> Tensor:
        return torch.ones(self.n, dtype=dtype, device=device)

    def compose(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b

    @abstractmethod
    def factor(self, element: Tensor, power: int) -> Tensor:
        """Return the (n,) factors that multiply entries of a leg with this ``power``."""

    def act(self, element: Tensor, tensor: Tensor, axis: int, power: int = 1) -> Tensor:
        self._check_axis(tensor, axis)
        self._check_shape("an element", element, self.shape)
        shape = [1] * tensor.ndim
        shape[axis] = self.n
        # a factor in half precision would add its own rounding error, the same for the whole row
        work = torch.promote_types(tensor.dtype, torch.float32)
        return (tensor * self.factor(element, power).to(work).reshape(shape)).to(tensor.dtype)


class MatrixGroup(Group):
    """``batch`` copies of an n by n matrix group: an element has shape (batch, n, n).

    Block b acts on the entries b·n, …, b·n + n - 1 of an axis of size batch·n.
    """

    n: int
    batch: int

    @property
    def coordinates(self) -> int:
        return self.batch * self.n

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.batch, self.n, self.n)

    def identity(self, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> Tensor:
        return torch.eye(self.n, dtype=dtype, device=device).repeat(self.batch, 1, 1)

    def compose(self, a: Tensor, b: Tensor) -> Tensor:
        return a @ b

    @abstractmethod
    def matrix(self, element: Tensor, power: int) -> Tensor:
        """Return the (batch, n, n) matrices that mix a leg with this ``power`` (+1: g, -1: g⁻ᵀ)."""

    def act(self, element: Tensor, tensor: Tensor, axis: int, power: int = 1) -> Tensor:
        self._check_axis(tensor, axis)
        self._check_shape("an element", element, self.shape)
        # a sum of n products: in the wider dtype, for TF32 and half precision would lose the invariance
        work = torch.promote_types(element.dtype, tensor.dtype)
        blocks = tensor.movedim(axis, -1).to(work)
        blocks = blocks.reshape(*blocks.shape[:-1], self.batch, self.n)
        mixed = torch.einsum("bij,...bj->...bi", self.matrix(element, power).to(work), blocks)
        return mixed.flatten(-2).movedim(-1, axis).to(tensor.dtype).contiguous()

    def _check_power(self, power: int) -> None:
        if power not in (1, -1):
            raise GroupError(
                f"Expected power 1 or -1 for {self.symbol}, got {power}. Only diagonal groups have other powers."
            )

    def _check_matrices(self, element: Tensor) -> None:
        self._check_shape("an element", element, self.shape)
        if element.dtype not in (torch.float32, torch.float64) or not bool(element.isfinite().all()):
            raise GroupError(
                f"Expected finite float32 or float64 matrices for {self.symbol}, got {element.dtype} with "
                f"{int((~element.isfinite()).sum())} entries not finite. Compute elements in float64."
            )
