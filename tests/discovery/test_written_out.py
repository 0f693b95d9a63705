"""Norms and linear maps that a model writes out itself, as people do, and what only looks like them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaugefix.testing import redundancy
from tests.discovery.architectures import Net, parameter
from tests.discovery.attention_parts import EPS, sound, symbols, x
from tests.discovery.streams import D, found

X, LONG = (x(5),), (x(9),)
STREAM, LONGER = (x(3, D),), (x(6, D),)

RMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "pow, rsqrt": lambda x, g: g * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS)),
    "square, sqrt": lambda x, g: x / torch.sqrt(x.square().mean(-1, keepdim=True) + EPS) * g,
    "x·x, pow": lambda x, g: x * (torch.mean(x * x, -1, keepdim=True) + EPS).pow(-0.5) * g,
    "factor first": lambda x, g: torch.rsqrt(EPS + x.pow(2).mean(dim=2, keepdim=True)) * x * g,
    "casts": lambda x, g: g * (x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + EPS)).to(x.dtype),
    "a cast of the square": lambda x, g: (
        x * torch.rsqrt(x.to(torch.float32).pow(2).mean(-1, True) + EPS).type_as(x) * g
    ),
    "1 + γ": lambda x, g: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * (1.0 + g),
    "γ + 1 in float": lambda x, g: (
        x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + EPS) * (g.float() + 1)
    ).type_as(x),
}
NOT_RMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a mean over positions": lambda x, g: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + EPS) * g,
    "a cube": lambda x, g: x * torch.rsqrt(x.pow(3).mean(-1, keepdim=True).abs() + EPS) * g,
    "another value": lambda x, g: x * torch.rsqrt(x.tanh().pow(2).mean(-1, keepdim=True) + EPS) * g,
    "rounded down": lambda x, g: (
        torch.div(x, (x.pow(2).mean(-1, keepdim=True) + EPS).sqrt(), rounding_mode="floor") * g
    ),
    "whole numbers": lambda x, g: (lambda y: y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + EPS) * g)(
        x.long().to(x)
    ),
    "half of the channels": lambda x, g: x * torch.rsqrt(x[..., :2].pow(2).mean(-1, keepdim=True) + EPS) * g,
    "weighted": lambda x, g: x * torch.rsqrt((x * g).pow(2).mean(-1, keepdim=True) + EPS),
    "changed in place": lambda x, g: (
        x.clone().tanh_(),
        x * torch.rsqrt(x.tanh_().pow(2).mean(-1, keepdim=True) + EPS),
    )[1],
}


def stream(norm: Callable[[Tensor, Tensor], Tensor]) -> Net:
    """A pre-norm branch and a head behind a norm."""

    def forward(s: Any, x: Tensor) -> Tensor:
        h = s.a(x)
        h = h + s.down(F.gelu(s.up(norm(h, s.p))))
        return s.o(norm(h, s.q))

    sizes = {"a": (D, D), "up": (D, 3), "down": (3, D), "o": (D, 3)}
    linears = {name: nn.Linear(*size, bias=False) for name, size in sizes.items()}
    return Net(forward, **linears, p=parameter(D), q=parameter(D))


@pytest.mark.parametrize("name", RMS)
def test_rms_norms(name):
    gauge = sound(stream(RMS[name]), STREAM, LONGER)
    assert found(gauge) == ["O(4)"]
    assert symbols(gauge, "scale") == ["R*^4"] * 2


def test_nothing_is_missing_behind_a_gain_of_one_plus():
    model = stream(RMS["1 + γ"])
    assert sound(model, STREAM).dimension == redundancy(model, STREAM, draws=1).nullity == 6 + 8


@pytest.mark.parametrize("name", NOT_RMS)
def test_what_is_no_rms_norm(name):
    assert "O(4)" not in found(sound(stream(NOT_RMS[name]), STREAM, LONGER))


def test_an_eps_outside_the_root_rotates_no_less_but_is_not_found():
    assert not found(sound(stream(lambda x, g: x / (x.pow(2).mean(-1, keepdim=True).sqrt() + EPS) * g), STREAM, LONGER))


def test_a_value_inside_the_norm_that_is_read_elsewhere():
    """The factor is a number for each position, which nothing moves."""

    def forward(s, x):
        h = s.a(x)
        factor = torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + EPS)
        return s.o(h * factor * s.p), factor

    gauge = sound(Net(forward, a=nn.Linear(D, D), o=nn.Linear(D, 3), p=parameter(D)), STREAM, LONGER)
    assert {s.name for s in gauge.applied} <= {"p:scale", "a:sign", "p:permutation", "a:permutation", "a:rotation"}


class TestTransposedProducts:
    """x @ Wᵀ is a linear map; x @ W.permute(0, 1) is x @ W."""

    @pytest.mark.parametrize(
        "turn", [lambda w: w.t(), lambda w: w.mT, lambda w: w.transpose(0, 1), lambda w: w.permute(1, 0)]
    )
    def test_turned(self, turn):
        net = Net(lambda s, x: s.o(torch.tanh(x @ turn(s.w))), w=parameter(4, 6), o=nn.Linear(4, 3))
        assert [s.group.symbol for s in sound(net, X, LONG).applied] == ["Z2^4", "S_4"]

    @pytest.mark.parametrize(
        "turn", [lambda w: w.permute(0, 1), lambda w: w.transpose(1, 1), lambda w: w.transpose(-2, 0)]
    )
    def test_left_in_place(self, turn):
        net = Net(lambda s, x: s.o(s.a(x) @ turn(s.w)), a=nn.Linear(6, 6), w=parameter(6, 6), o=nn.Linear(6, 3))
        assert sound(net, X, LONG).dimension == 36 + 36 + 6
