"""Models that run other operations in train mode: a parameter absorbs the same shift in both, or none."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaugefix.symmetry import GaugeGroup, ShiftSymmetry
from tests.discovery.attention_parts import EPS, sound, x

X, LONG = (x(5),), (x(9),)


def conditional(gauge: GaugeGroup) -> dict[str, int]:
    shifts = [s for s in gauge.applied if isinstance(s, ShiftSymmetry) and s.conditional]
    return {", ".join(s.parameters): s.dimension for s in shifts}


class ByMode(nn.Module):
    """A map without a bias that reads something else in train mode."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.a, self.n, self.m = nn.Linear(6, 4), nn.LayerNorm(4, EPS), nn.LayerNorm(4, EPS)
        self.o, self.b = nn.Linear(4, 4, bias=False), nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        h, there = self.a(x), self.training
        ways = {
            "the same": lambda: self.o(self.n(h)),
            "no norm": lambda: self.o(h if there else self.n(h)),
            "a norm in train mode only": lambda: self.o(self.n(h) if there else h),
            "another norm": lambda: self.o(self.n(h) if there else self.m(h)),
            "another use": lambda: self.o(self.n(h)) if there else self.n(h) * self.o.weight[0],
            "another use in train mode": lambda: self.n(h) * self.o.weight[0] if there else self.o(self.n(h)),
        }
        return ways[self.way]()


@pytest.mark.parametrize(
    "way", ["no norm", "a norm in train mode only", "another norm", "another use", "another use in train mode"]
)
def test_both_modes_must_read_the_same_norm(way):
    assert not any("o.weight" in names for names in conditional(sound(ByMode(way), X, LONG)))


def test_two_modes_that_read_the_same_norm():
    assert conditional(sound(ByMode("the same"), X, LONG)) == {"n.bias, o.weight": 4}


class BiasByMode(nn.Module):
    """A bias that absorbs the shift of one map in eval mode, and is used otherwise in train mode."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.a, self.o = nn.Linear(6, 4), nn.Linear(4, 3)
        self.v, self.w, self.b = (nn.Parameter(torch.randn(*s)) for s in ((4, 4), (4, 4), (4,)))

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        if not self.training:
            return self.o(F.gelu(F.linear(h, self.v, self.b)))
        ways = {
            "another map": lambda: F.linear(h, self.w, self.b),
            "added": lambda: h @ self.v.t() + self.b,
            "added to another map": lambda: h @ self.w + self.b,
            "multiplied": lambda: h @ self.v.t() * self.b,
        }
        return self.o(F.gelu(ways[self.way]()))


@pytest.mark.parametrize("way", ["another map", "added", "added to another map", "multiplied"])
def test_a_bias_absorbs_the_same_in_both_modes_or_nothing(way):
    gauge = sound(BiasByMode(way), X, LONG)
    assert not any("b" in s.parameters for s in gauge.applied if isinstance(s, ShiftSymmetry))
