"""Parts of small attention networks, and the check that what is found in one is true."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaugefix import discover, verify
from gaugefix.errors import NoEffectWarning
from gaugefix.symmetry import GaugeGroup, Symmetry

EPS = 0.05  # a large eps separates exact directions from those that a norm only nearly ignores
TOLERANCE = 1e-12
Turn = Callable[[Tensor], Tensor]


def sound(model: nn.Module, args: tuple[Any, ...], *others: tuple[Any, ...]) -> GaugeGroup:
    """What is found on an example, proved on it and on other inputs (longer ones: examples are short)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoEffectWarning)
        gauge = discover(model, args)
    for inputs in (args, *others):
        assert verify(model, gauge, inputs, tolerance=TOLERANCE).error < TOLERANCE
        if gauge.dropout:
            assert verify(model, gauge.exact(), inputs, tolerance=TOLERANCE).error < TOLERANCE
    return gauge


def ending(gauge: GaugeGroup, kind: str) -> list[Symmetry]:
    """The symmetries of one kind: ``heads``, ``planes``, ``shift``, …"""
    return [s for s in gauge.applied if s.name.partition(":")[2].partition(".")[0].split(" ")[0] == kind]


def symbols(gauge: GaugeGroup, kind: str) -> list[str]:
    return [s.group.symbol for s in ending(gauge, kind)]


def x(length: int = 5, width: int = 6, batch: int = 3) -> Tensor:
    return torch.randn(batch, length, width, generator=torch.Generator().manual_seed(length))


def split(x: Tensor, n: int) -> Tensor:
    """(batch, positions, channels) → (batch, heads, positions, channels of a head)."""
    return x.unflatten(-1, (n, -1)).transpose(1, 2)


def merge(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


sdpa = F.scaled_dot_product_attention


def eager(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v


def slopes(n: int) -> Tensor:
    """−|i − j|, (positions, positions)."""
    positions = torch.arange(n)
    return -(positions - positions[:, None]).abs().float()


# ---- rotary positions ------------------------------------------------------------------------------------------------
def angles(x: Tensor, planes: int, first: int = 0) -> Tensor:
    """(positions, planes)."""
    positions = torch.arange(first, first + x.shape[-2], dtype=x.dtype)
    return positions[:, None] / 3.0 ** torch.arange(planes, dtype=x.dtype)


def by_halves(x: Tensor, a: Tensor | None = None) -> Tensor:
    """Channel i turns with channel i + n/2."""
    a = angles(x, x.shape[-1] // 2) if a is None else a
    a = torch.cat([a, a], -1)
    first, second = x.chunk(2, -1)
    return x * a.cos() + torch.cat([-second, first], -1) * a.sin()


def interleaved(x: Tensor) -> Tensor:
    """Channel 2i turns with channel 2i + 1."""
    a = angles(x, x.shape[-1] // 2).repeat_interleave(2, -1)
    turned = torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
    return x * a.cos() + turned * a.sin()


def in_parts(x: Tensor) -> Tensor:
    """As two new halves."""
    a = angles(x, x.shape[-1] // 2)
    first, second = x.chunk(2, -1)
    return torch.cat([first * a.cos() - second * a.sin(), second * a.cos() + first * a.sin()], -1)


def complex_numbers(x: Tensor) -> Tensor:
    a = angles(x, x.shape[-1] // 2)
    z = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(z * torch.polar(torch.ones_like(a), a)).flatten(-2)


def partial(x: Tensor) -> Tensor:
    """The first two channels only."""
    return torch.cat([by_halves(x[..., :2]), x[..., 2:]], -1)


class Rotary(nn.Module):
    """Attention with positions that turn queries and keys.

    Args:
        turn: of queries and keys, laid out (batch, heads, positions, channels).
        groups: number of key heads.
        keys: of the keys, if it is another.
        bias: whether the projections have one.
    """

    def __init__(self, turn: Turn, groups: int = 2, keys: Turn | None = None, bias: bool = True) -> None:
        super().__init__()
        self.turn, self.groups = (turn, keys or turn), groups
        self.q, self.k, self.v = nn.Linear(6, 8, bias), nn.Linear(6, 4 * groups, bias), nn.Linear(6, 4 * groups, bias)
        self.out = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = split(self.q(x), 2), split(self.k(x), self.groups), split(self.v(x), self.groups)
        return self.out(merge(sdpa(self.turn[0](q), self.turn[1](k), v, enable_gqa=True)))
