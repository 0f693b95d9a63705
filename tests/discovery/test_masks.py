"""Scores that are filled where they are masked: what survives, and what must not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gaugefix
from gaugefix.errors import NoEffectWarning
from gaugefix.testing import redundancy
from tests.discovery.transformers_small import heads

WIDTH, LENGTH = 8, 5
KEYS = WIDTH  # a constant on all keys, one number for each channel of each head
Fill = Callable[[nn.Module, Tensor, Tensor], Tensor]


class Eager(nn.Module):
    """Attention by hand, two heads; ``fill(self, scores, x)`` makes of the scores what the softmax reads."""

    def __init__(self, fill: Fill) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.fill = fill

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (heads(part, 2) for part in self.qkv(x).chunk(3, -1))
        weights = self.fill(self, q @ k.transpose(-1, -2) * 0.5, x).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


def future(x: Tensor) -> Tensor:
    return torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)


def by_data(x: Tensor) -> Tensor:
    """(batch, 1, positions, positions), never on the diagonal."""
    return (x[:, None, None, :, 0] > 0.5) & ~torch.eye(x.shape[1], dtype=torch.bool)


SEEN_BY_NOBODY: dict[str, Fill] = {
    "infinity": lambda m, s, x: s.masked_fill(future(x), -torch.inf),
    "lowest number": lambda m, s, x: s.masked_fill(future(x), torch.finfo(s.dtype).min),
    "-1e4": lambda m, s, x: s.masked_fill(future(x), -1e4),
    "where": lambda m, s, x: torch.where(~future(x), s, -1e9),
    "where, a tensor": lambda m, s, x: torch.where(future(x), torch.full([], -1e9, dtype=s.dtype), s),
    "a mask of the data": lambda m, s, x: torch.where(by_data(x), -1e9, s).to(torch.float32),
    "twice": lambda m, s, x: s.masked_fill(future(x), -torch.inf).masked_fill(by_data(x), -torch.inf),
    "behind an added mask": lambda m, s, x: (s - 1e4 * by_data(x)).masked_fill(future(x), -torch.inf),
}

SEEN: dict[str, Fill] = {
    "moderate": lambda m, s, x: s.masked_fill(future(x), -5.0),
    "positive": lambda m, s, x: torch.where(future(x), 1e9, s),
    "a fill of the data": lambda m, s, x: torch.where(future(x), x[:, None, :, :1] - 3.0, s),
    "a fill of a parameter": lambda m, s, x: torch.where(future(x), m.out.bias[0], s),
    "scaled down behind": lambda m, s, x: s.masked_fill(future(x), -1e4) * 1e-4,
    "raised behind": lambda m, s, x: s.masked_fill(future(x), -1e4) + 1e4 * future(x),
    "as low as an added mask": lambda m, s, x: (s - 1e4).masked_fill(future(x), -1e4),
    "a mask of the scores": lambda m, s, x: s.masked_fill((s > 0.3) & future(x), -1e9),
    "a mask along the other axis": lambda m, s, x: (
        s.masked_fill(future(x), -1e9).transpose(-1, -2).softmax(-1).transpose(-1, -2)
    ),
}


def key_shifts(fill: Fill) -> int:
    """How many shifts are found, but for those of the values."""
    model = Eager(fill)
    x = torch.randn(2, LENGTH, WIDTH)
    gauge = gaugefix.discover(model, (x,))
    assert gaugefix.verify(model, gauge, (x,)).error <= 1e-12
    return sum(s.dimension for s in gauge.applied if "shift" in s.name) - WIDTH


@pytest.mark.parametrize("name", SEEN_BY_NOBODY)
def test_a_constant_on_all_keys_survives_a_fill_without_weight(name):
    assert key_shifts(SEEN_BY_NOBODY[name]) == KEYS


@pytest.mark.parametrize("name", SEEN)
def test_a_constant_on_all_keys_is_seen_beside_a_fill_with_weight(name):
    assert key_shifts(SEEN[name]) <= 0


@pytest.mark.parametrize(("fill", "lost"), [(-1e4, 0), (-5.0, KEYS)])
def test_the_jacobian_says_so(fill, lost):
    model = Eager(lambda m, s, x: s.masked_fill(future(x), fill))
    x = torch.randn(2, LENGTH, WIDTH)
    found = gaugefix.discover(model, (x,)).dimension
    assert found == 80 - lost
    assert redundancy(model, (x,), draws=1).nullity == found


def exchanges_heads(fill: Fill) -> bool:
    gauge = gaugefix.discover(Eager(fill), (torch.randn(2, LENGTH, WIDTH),))
    return any(s.name.endswith(":heads") for s in gauge.applied)


def test_heads_change_places_under_a_fill_that_they_share():
    per_head = torch.stack([torch.ones(LENGTH, LENGTH).triu(k + 1).bool() for k in range(2)])
    assert exchanges_heads(lambda m, s, x: s.masked_fill(future(x), -5.0))
    assert not exchanges_heads(lambda m, s, x: s.masked_fill(per_head, -torch.inf))
    assert not exchanges_heads(lambda m, s, x: torch.where(future(x), torch.tensor([-1.0, -2.0])[:, None, None], s))


def test_a_fill_of_zero_keeps_the_channels_and_stops_a_shift():
    class Padded(nn.Module):
        def __init__(self, fill: float) -> None:
            super().__init__()
            self.fill, self.first, self.second = fill, nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x).masked_fill(x[..., :1] > 0, self.fill))

    model, x = Padded(0.0), torch.randn(5, 4)
    gauge = gaugefix.discover(model, (x,))
    assert gaugefix.verify(model, gauge, (x,)).error <= 1e-12
    assert gauge.dimension == 36 - 3  # GL(6), written with rank 5 and read with rank 3; no shift
    with pytest.warns(NoEffectWarning):
        gaugefix.discover(Padded(0.5), (x,))


def test_rows_sum_to_one_whatever_the_softmax_reads():
    class Uniform(nn.Module):
        """Averages of values with weights that come from the data alone."""

        def __init__(self) -> None:
            super().__init__()
            self.values, self.out = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out((x @ x.transpose(-1, -2)).softmax(-1) @ self.values(x))

    model, x = Uniform(), torch.randn(2, 5, 4)
    gauge = gaugefix.discover(model, (x,))
    assert gaugefix.verify(model, gauge, (x,)).error <= 1e-12
    assert gauge.dimension == redundancy(model, (x,), draws=1).nullity
