"""Neural ODEs: fields and models for tests."""

from collections.abc import Callable

import torch
import torchdiffeq
from torch import Tensor, nn

INPUTS, STATES, HIDDEN, OUTPUTS = 5, 4, 6, 3


class Field(nn.Module):
    """dx/dt = W₂ σ(W₁ x + b₁) + b₂, with the time as a further column of x or without."""

    def __init__(
        self,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
        time: bool = True,
        norm: nn.Module | None = None,
        gain: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(STATES + time, HIDDEN), nn.Linear(HIDDEN, STATES)
        self.norm = norm
        self.activation, self.time, self.gain = activation, time, gain
        self.evaluations = 0

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        self.evaluations += 1
        read = x if self.norm is None else self.norm(x)
        if self.time:
            read = torch.cat([read, torch.ones_like(read[..., :1]) * t], -1)
        velocity = self.outer(self.activation(self.inner(read)))
        return velocity if self.gain is None else self.gain(t, x) * velocity


class NeuralOde(nn.Module):
    """y = D x(T), where x solves the field from x(0) = E u."""

    times: Tensor

    def __init__(
        self,
        field: nn.Module | None = None,
        solve: Callable[..., Tensor] = torchdiffeq.odeint,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        ends: tuple[float, ...] = (0.0, 0.3, 1.0),
        interior: bool = False,
        **settings: object,
    ) -> None:
        super().__init__()
        self.encoder = encoder or nn.Linear(INPUTS, STATES)
        self.field = field or Field()
        self.decoder = decoder or nn.Linear(STATES, OUTPUTS)
        self.register_buffer("times", torch.tensor(ends))
        self.solve, self.interior, self.settings = solve, interior, {"method": "rk4", **settings}

    def forward(self, u: Tensor) -> Tensor:
        states = self.solve(self.field, self.encoder(u), self.times, **self.settings)
        return self.decoder(states[1:].transpose(0, 1) if self.interior else states[-1])


def example(dtype: torch.dtype = torch.float32) -> tuple[Tensor]:
    return (torch.randn(7, INPUTS, generator=torch.Generator().manual_seed(0)).to(dtype),)


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()
