"""Small residual streams with norms in front of their branches."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from gaugefix.symmetry import GaugeGroup, ResidualRotation
from tests.discovery.architectures import Net
from tests.discovery.attention_parts import EPS, x

D = 4
X, LONG = (x(3, D),), (x(6, D),)


def rotations(gauge: GaugeGroup) -> list[ResidualRotation]:
    return [s for s in gauge.applied if isinstance(s, ResidualRotation)]


def found(gauge: GaugeGroup) -> list[str]:
    return [s.group.symbol for s in rotations(gauge)]


def rms(gain: bool = True) -> nn.Module:
    return nn.RMSNorm(D, EPS, elementwise_affine=gain)


def layer(**options: bool) -> nn.Module:
    return nn.LayerNorm(D, EPS, **options)


def branch(bias: bool = True) -> nn.Module:
    return nn.Sequential(nn.Linear(D, 3, bias), nn.GELU(), nn.Linear(3, D, bias))


def stream(function: Any = None, norm: Any = rms, bias: bool = False, **more: nn.Module | nn.Parameter) -> Net:
    """Two pre-norm branches and a norm before the head; ``function`` changes the stream on its way."""

    def forward(s: Any, x: Tensor) -> Any:
        h = s.a(x)
        h = h + s.f(s.n(h))
        h = h if function is None else function(s, h)
        if isinstance(h, tuple):
            return (s.o(s.l(h[0] + s.g(s.m(h[0])))), *h[1:])
        h = h + s.g(s.m(h))
        return s.o(s.l(h))

    parts = {"a": nn.Linear(D, D, bias), "n": norm(), "m": norm(), "l": norm(), "o": nn.Linear(D, 3, bias)}
    return Net(forward, **{**parts, "f": branch(bias), "g": branch(bias), **more})
