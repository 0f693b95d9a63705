"""Small networks whose gauge groups cover what slices and transport must handle, each built and discovered once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, nn

import gaugefix
from gaugefix import GaugeGroup
from gaugefix.groups import DiagonalGroup, PositiveScaling
from gaugefix.symmetry import LinearSymmetry
from gaugefix.testing.redundancy import randomise_


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(5, 6), nn.Linear(6, 9), nn.Linear(9, 6), nn.Linear(6, 3)

    def forward(self, x):
        h = self.a(x).relu()
        h = h + self.c(self.b(h).relu())
        return self.d(h.relu())


class Recurrent(nn.Module):
    """One weight used three times: vector and covector of the same class."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.h, self.d = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = self.a(x).relu()
        for _ in range(3):
            x = self.h(x).relu()
        return self.d(x)


class Gated(nn.Module):
    """relu(Gx)·(Ux): two classes on one axis of the last weight."""

    def __init__(self) -> None:
        super().__init__()
        self.u, self.g, self.d = nn.Linear(5, 7), nn.Linear(5, 7), nn.Linear(7, 3)

    def forward(self, x):
        return self.d(self.g(x).relu() * self.u(x))


class Squared(nn.Module):
    """relu(x)²: the last weight is a covector of power 2."""

    def __init__(self) -> None:
        super().__init__()
        self.u, self.v, self.d = nn.Linear(5, 7), nn.Linear(7, 4), nn.Linear(4, 3)

    def forward(self, x):
        h = self.v(self.u(x).relu()).relu()
        return self.d(h * h)


class Concatenated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(5, 4), nn.Linear(5, 3), nn.Linear(7, 6), nn.Linear(6, 2)

    def forward(self, x):
        x = torch.cat([self.a(x).relu(), self.b(x).relu()], dim=-1)
        return self.d(self.c(x).relu())


class ResidualConv(nn.Module):
    """Two residual blocks with live batch norms, the shape of a small ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.c1, self.n1 = nn.Conv2d(4, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
        self.c2, self.n2 = nn.Conv2d(5, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = (x + self.n2(self.c2(self.n1(self.c1(x)).relu()))).relu()
        return self.head(x.mean((2, 3)))


class Tied(nn.Module):
    """An encoder whose weight is also the decoder's, transposed by use."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(5, 6), nn.Linear(5, 6)
        self.decoder.weight = self.encoder.weight
        self.d = nn.Linear(12, 3)

    def forward(self, x):
        return self.d(torch.cat([self.encoder(x).relu(), self.decoder(x).relu()], dim=-1))


def mlp(*widths: int, bias: bool = True, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out, bias=bias), activation()]
    return nn.Sequential(*layers[:-1])


def flattened() -> nn.Sequential:
    """Batch norm, pooling, and one channel scale on a block of columns after flatten."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 3), nn.LeakyReLU(), nn.Flatten(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3),
    )  # fmt: skip


def grouped() -> nn.Sequential:
    """Depthwise, then grouped, then a PReLU with a slope per channel, then flatten."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.ReLU(),
        nn.Conv2d(4, 8, 3, groups=2), nn.PReLU(8), nn.Flatten(), nn.Linear(8 * 4 * 4, 3),
    )  # fmt: skip


def normed(d: int = 6) -> nn.Sequential:
    """Layer norm with writers and readers: scalings, shifts and kernels."""
    return nn.Sequential(nn.Linear(4, d), nn.LayerNorm(d), nn.Linear(d, 5), nn.ReLU(), nn.Linear(5, 3))


BUILDERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: mlp(5, 8, 7, 6, 3), (5,)),
    "mlp without bias": (lambda: mlp(5, 8, 7, 6, 3, bias=False), (5,)),
    "one hidden layer": (lambda: mlp(5, 8, 3), (5,)),
    "residual": (Residual, (5,)),
    "recurrent": (Recurrent, (5,)),
    "gated": (Gated, (5,)),
    "squared": (Squared, (5,)),
    "concatenated": (Concatenated, (5,)),
    "tied": (Tied, (5,)),
    "flattened": (flattened, (2, 6, 6)),
    "grouped": (grouped, (2, 6, 6)),
    "residual conv": (ResidualConv, (2, 6, 6)),
    "odd": (lambda: mlp(5, 8, 6, 3, activation=nn.Tanh), (5,)),
    "bottleneck": (lambda: nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), (6,)),
    "normed": (normed, (4,)),
}
SCALED = [name for name in BUILDERS if name not in ("odd", "bottleneck", "normed")]
"""Nets whose continuous symmetries are scalings (and at most a shift of a bias in front of a batch norm)."""


@cache
def _built(name: str) -> tuple[nn.Module, GaugeGroup]:
    make, shape = BUILDERS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make()
    return net, gaugefix.discover(net, (torch.zeros(4, *shape),))


def build(name: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[nn.Module, GaugeGroup, Tensor]:
    """A fresh net with generic parameters, its gauge group, and a batch."""
    prototype, gauge = _built(name)
    net = copy.deepcopy(prototype).to(dtype)
    randomise_(net, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    batch = torch.randn(16, *BUILDERS[name][1], generator=generator, dtype=torch.float64)
    return net, gauge, batch.to(dtype)


def declared(net: nn.Sequential) -> GaugeGroup:
    """The scalings of an MLP, by hand: no tracing, so that many shapes can be drawn."""
    layers = [name for name, module in net.named_children() if isinstance(module, nn.Linear)]
    gauge = GaugeGroup((), {})
    for here, after in pairwise(layers):
        vectors = {f"{here}.weight": 0} | ({f"{here}.bias": 0} if net[int(here)].bias is not None else {})
        units = PositiveScaling(net[int(here)].out_features)
        gauge = gaugefix.declare(net, units, vectors, {f"{after}.weight": 1}, gauge=gauge)
    return gauge


def scalings(gauge: GaugeGroup) -> list[LinearSymmetry]:
    """The applied symmetries that scale continuously."""
    return [s for s in gauge.applied if isinstance(s.group, DiagonalGroup) and s.group.dimension]


def parameters(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def loss(net: nn.Module, batch: Tensor) -> Tensor:
    """A loss that weighs all outputs differently."""
    y = net(batch).double()
    return (((y - torch.linspace(-1, 1, y.shape[-1], dtype=y.dtype)) ** 2).sum() + y.sum()) / 16


def relative(new: Tensor, old: Tensor) -> float:
    return float((new.detach().double() - old.detach().double()).norm() / old.detach().double().norm())
