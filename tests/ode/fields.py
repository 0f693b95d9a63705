"""Fields to move about, and how far apart two answers are."""

import itertools
import math

import torch
from torch import nn
from torchdiffeq import odeint

from gaugefix.ode import AffineGauge, LinearField

ENDS = torch.tensor([0.0, 1.0], dtype=torch.float64)


def pendulum(t, x):
    """Nonlinear, and different at every time."""
    return torch.stack([x[..., 1], -torch.sin(3 * x[..., 0]) - 0.3 * x[..., 1] * torch.cos(2 * t)], -1)


class Net(nn.Module):
    """A small neural ODE that sees the time."""

    def __init__(self, n=2, hidden=8, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first, self.second = nn.Linear(n + 1, hidden), nn.Linear(hidden, n)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(0.7 * torch.randn(p.shape, generator=generator))

    def forward(self, t, x):
        time = t.expand(*x.shape[:-1], 1).to(x)
        return self.second(torch.tanh(self.first(torch.cat([time, x], -1))))


def inputs(points=6, n=2, seed=0):
    return torch.randn(points, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def flow(field, x, rtol=1e-10):
    """x(1), by an adaptive solver that stops at 1: its interpolation is less exact than its steps."""
    options = {"step_t": ENDS}
    return odeint(field, x, ENDS, method="dopri8", rtol=rtol, atol=rtol / 100, options=options)[-1]


def fixed_steps(field, x, steps, method="rk4"):
    return odeint(field, x, ENDS.to(x), method=method, options={"step_size": 1 / steps})[-1]


def relative(a, b):
    return float(((a - b).norm() / b.norm()).detach())


def orders(errors):
    """The order of convergence between each error and the next, at half the step."""
    return [math.log2(a / b) for a, b in itertools.pairwise(errors)]


def linear(n=4, seed=0, bias=True):
    """A linear field whose matrices do not commute with themselves at other times."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(3, n, n, generator=generator, dtype=torch.float64)
    b = torch.randn(2, n, generator=generator, dtype=torch.float64)

    def weight(t):
        return a[0] + a[1] * torch.sin(3 * t) + a[2] * torch.cos(2 * t)

    return LinearField(weight, (lambda t: b[0] + b[1] * torch.sin(t)) if bias else None)


def affine(n=4, seed=1, scale=0.4, ends="fixed"):
    """A gauge that is trivial at both ends, or (ends="free") at none."""
    generator = torch.Generator().manual_seed(seed)
    a = scale * torch.randn(2, n, n, generator=generator, dtype=torch.float64)
    c = torch.randn(n, generator=generator, dtype=torch.float64)

    def bump(t):
        return torch.sin(math.pi * t) + (0.5 if ends == "free" else 0.0)

    return AffineGauge(lambda t: torch.linalg.matrix_exp(bump(t) * (a[0] + t * a[1])), lambda t: bump(t) * c)
