"""Terms of the balance problem: one parameter each, its legs sorted by axis, and sums of its squares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gaugefix.symmetry import Leg

_FEW_ROWS = 4096
"""Rows up to which a running sum in single precision loses no digit that matters."""


@dataclass(frozen=True, eq=False)
class Seat:
    """A leg with the place of its class in u."""

    leg: Leg
    start: int
    size: int


@dataclass(frozen=True, eq=False)
class Side:
    """All legs of one parameter along one axis (or one pattern of axes)."""

    axes: tuple[int, ...]
    seats: tuple[Seat, ...]


@dataclass(frozen=True, eq=False)
class Term:
    """One parameter with its legs; ``flat`` if every leg lies on one axis and there are at most two axes."""

    parameter: str
    sides: tuple[Side, ...]
    flat: bool
    offset: float


@dataclass
class Moments:
    """Sums at one point u: in and out per unit, marginals per term and side, and the squared norm."""

    ins: Tensor
    outs: Tensor
    parts: list[tuple[Tensor, ...]]

    def norm(self) -> Tensor:
        """2Φ: the squared norm of everything that moves."""
        return torch.stack([parts[0].sum() for parts in self.parts]).sum()


@dataclass(frozen=True, eq=False)
class Squares:
    """S of one term, or, where no axis is summed over, the parameter itself: squared when it is needed.

    Args:
        tensor: S or P, at least float32.
        raw: whether it is P.
    """

    tensor: Tensor
    raw: bool = False


def values(term: Term, tensors: Mapping[str, Tensor]) -> Tensor:
    """The parameter as it scales: with its offset, contiguous, at least float32."""
    tensor = tensors[term.parameter]
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()
    if term.offset:
        tensor = tensor + term.offset
    return tensor if tensor.is_contiguous() else tensor.contiguous()


def sums_of_rows(term: Term) -> bool:
    """Whether all legs of a matrix lie on its first axis, so that norms of rows are all that is needed."""
    return term.flat and len(term.sides) == 1 and term.sides[0].axes == (0,)


def marginals(term: Term, square: Tensor) -> tuple[Tensor, ...]:
    """Sums of the squares over all but the axes of each side; contiguous reductions where possible.

    The sums are new tensors: ``square`` may be a scratch buffer.
    """
    if not term.flat:
        return tuple(onto(square, side.axes).clone() for side in term.sides)
    out = []
    for side in term.sides:
        axis = side.axes[0]
        if square.ndim == 1:
            out.append(square)
        elif axis == 0:
            out.append(square.flatten(1).sum(1))
        elif axis == 1:
            columns = _column_sums(square.flatten(1))
            out.append(columns if square.ndim == 2 else columns.reshape(square.shape[1], -1).sum(1))
        else:
            out.append(onto(square, (axis,)).reshape(-1))
    return tuple(out)


def _column_sums(square: Tensor) -> Tensor:
    """Σ over rows. On a CPU a product is faster, and with few rows as exact as a sum."""
    if square.device.type == "cpu" and square.shape[0] <= _FEW_ROWS:
        return torch.mv(square.t(), square.new_ones(square.shape[0]))
    return square.sum(0)


def reduced(term: Term, square: Tensor) -> Tensor:
    """Sum the squares over the axes along which no leg varies."""
    axes = sorted({axis for side in term.sides for axis in side.axes})
    rest = [k for k in range(square.ndim) if k not in axes]
    if not term.flat:
        return square.sum(rest, keepdim=True) if rest else square
    return square.sum(rest) if rest else square


def onto(square: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Sum over all axes but these, and keep their places."""
    rest = [k for k in range(square.ndim) if k not in axes]
    return square.sum(rest, keepdim=True) if rest else square
