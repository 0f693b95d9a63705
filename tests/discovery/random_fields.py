"""Random neural ODEs: fields, encoders and decoders put together from parts that keep, narrow or break the gauge."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
import torchdiffeq
from torch import Tensor, nn

INPUTS, STATES, HIDDEN, OUTPUTS = 3, 4, 5, 2


class Part(nn.Module):
    """(t, x) → (…, STATES), by a function of the layers given: a copy of a closure would keep the old ones."""

    def __init__(self, function: Callable[[Part, Tensor, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.function(self, t, x)


class RandomField(nn.Module):
    """A sum of one to three parts, each perhaps behind a gain."""

    def __init__(self, choose: random.Random) -> None:
        super().__init__()
        self.parts = nn.ModuleList(_gained(choose, _part(choose)) for _ in range(choose.choice([1, 1, 2, 3])))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.stack([part(t, x) for part in self.parts]).sum(0)


def _part(choose: random.Random) -> Part:
    kind = choose.choice(["net", "net", "net", "deep", "linear", "damping", "direct", "normed", "bilinear", "some"])
    act = choose.choice([torch.tanh, torch.relu, torch.sin, nn.functional.softplus])
    if kind == "damping":
        return Part(lambda self, t, x: -0.5 * x)
    if kind == "linear":
        return Part(lambda self, t, x: self.only(x), only=nn.Linear(STATES, STATES, bias=choose.random() < 0.5))
    if kind == "direct":
        return Part(lambda self, t, x: self.only(act(x)), only=nn.Linear(STATES, STATES))
    if kind == "some":
        return Part(lambda self, t, x: self.only(torch.tanh(x[..., :2])), only=nn.Linear(2, STATES))
    columns = choose.choice(["none", "ones", "expand", "embedding"])
    width = STATES + {"none": 0, "ones": 1, "expand": 1, "embedding": 2}[columns]
    layers: dict[str, nn.Module] = {
        "inner": nn.Linear(width, HIDDEN),
        "outer": nn.Linear(HIDDEN, STATES, bias=choose.random() < 0.7),
    }
    if kind == "deep":
        layers["middle"] = nn.Linear(HIDDEN, HIDDEN)
    if kind == "bilinear":
        layers["other"] = nn.Linear(width, HIDDEN)
    if kind == "normed":
        layers["norm"] = nn.LayerNorm(STATES, eps=0.1, elementwise_affine=choose.random() < 0.5)

    def net(self: Part, t: Tensor, x: Tensor) -> Tensor:
        read = _with_time(columns, t, self.norm(x) if kind == "normed" else x)
        hidden = act(self.inner(read))
        if kind == "deep":
            hidden = act(self.middle(hidden))
        return self.outer(hidden * self.other(read) if kind == "bilinear" else hidden)

    return Part(net, **layers)


def _gained(choose: random.Random, part: Part) -> Part:
    kind = choose.choice(["none"] * 6 + ["time", "diagonal", "parameter", "gate", "scalar gate"])
    if kind == "time":
        return Part(lambda self, t, x: torch.sin(t + 1) * self.part(t, x), part=part)
    if kind == "diagonal":
        return Part(lambda self, t, x: torch.cos(torch.arange(1.0, STATES + 1).to(x) * t) * self.part(t, x), part=part)
    if kind == "parameter":
        gained = Part(lambda self, t, x: self.scale * self.part(t, x), part=part)
        gained.scale = nn.Parameter(torch.ones(STATES))
        return gained
    if kind in ("gate", "scalar gate"):
        gate = nn.Linear(STATES, STATES if kind == "gate" else 1)
        return Part(lambda self, t, x: torch.sigmoid(self.gate(x)) * self.part(t, x), part=part, gate=gate)
    return part


def _with_time(columns: str, t: Tensor, x: Tensor) -> Tensor:
    if columns == "ones":
        return torch.cat([x, torch.ones_like(x[..., :1]) * t], -1)
    if columns == "expand":
        return torch.cat([t.expand(*x.shape[:-1], 1), x], -1)
    if columns == "embedding":
        return torch.cat([x, torch.stack([t.sin(), t.cos()]).expand(*x.shape[:-1], 2)], -1)
    return x


class RandomNeuralOde(nn.Module):
    """An encoder, one or two solves, and a decoder."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        choose = random.Random(seed)
        self.start = choose.choice(["linear", "linear", "linear", "net", "zeros", "data", "parameter"])
        self.end = choose.choice(["linear", "linear", "linear", "all times", "difference", "net", "state", "tied"])
        self.twice, self.backwards = choose.random() < 0.2, choose.random() < 0.2
        self.method = choose.choice(["rk4", "euler", "midpoint", "dopri5"])
        self.solve = choose.choice([torchdiffeq.odeint, torchdiffeq.odeint_adjoint])
        encoded = {"zeros": STATES - 2, "data": STATES - INPUTS}.get(self.start, STATES)
        self.encoder = nn.Linear(INPUTS, encoded)
        self.first = nn.Parameter(torch.randn(STATES, generator=torch.Generator().manual_seed(seed)))
        self.field = RandomField(choose)
        self.decoder = nn.Linear(STATES * (3 if self.end == "all times" else 1), OUTPUTS)
        self.register_buffer("times", torch.tensor([0.0, 0.3, 0.8]))

    def forward(self, u: Tensor) -> Tensor:
        times = self.times.flip(0) if self.backwards else self.times
        settings = {"method": self.method, "rtol": 1e-4, "atol": 1e-4}
        states = self.solve(self.field, self._started(u), times, **settings)
        if self.twice:
            states = torchdiffeq.odeint(self.field, states[-1], times, method="rk4")
        return self._read(states)

    def _started(self, u: Tensor) -> Tensor:
        if self.start == "parameter":
            return self.first.expand(len(u), STATES) + self.encoder(u)
        encoded = self.encoder(u)
        if self.start == "net":
            return torch.relu(encoded)
        if self.start == "zeros":
            return torch.cat([encoded, encoded.new_zeros(len(u), 2)], -1)
        return torch.cat([u, encoded], -1) if self.start == "data" else encoded

    def _read(self, states: Tensor) -> Tensor:
        if self.end == "all times":
            return self.decoder(states.transpose(0, 1).flatten(1))
        if self.end == "difference":
            return self.decoder(states[2] - states[1])
        if self.end == "net":
            return self.decoder(torch.tanh(states[-1]))
        if self.end == "state":
            return states[-1].sum(-1) if self.twice else states[1]
        if self.end == "tied" and self.start == "linear":
            return states[-1] @ self.encoder.weight
        return self.decoder(states[-1])


def example() -> tuple[Tensor]:
    return (torch.randn(6, INPUTS, generator=torch.Generator().manual_seed(0)),)
