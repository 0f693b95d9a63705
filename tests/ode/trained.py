"""Small neural ODEs, trained: what the figures of docs/neural_ode.md are measured on."""

import functools
import math

import torch
from torch import nn
from torchdiffeq import odeint

ENDS = torch.tensor([0.0, 1.0])


class Classifier(nn.Module):
    """Encoder (linear, or none), field W₂ tanh(W₁(x, t) + b₁) + b₂ on [0, 1], linear decoder."""

    def __init__(self, inputs, n, hidden, classes):
        super().__init__()
        self.encoder = nn.Linear(inputs, n) if inputs != n else nn.Identity()
        self.field = TimeNet(n, hidden)
        self.decoder = nn.Linear(n, classes)

    def forward(self, x):
        y = odeint(self.field, self.encoder(x), ENDS, method="rk4", options={"step_size": 1 / 8})[-1]
        return self.decoder(y)


class TimeNet(nn.Module):
    """A field with one hidden layer that sees the time."""

    def __init__(self, n, hidden):
        super().__init__()
        self.first, self.second = nn.Linear(n + 1, hidden), nn.Linear(hidden, n)

    def forward(self, t, x):
        time = t.to(x).expand(*x.shape[:-1], 1)
        return self.second(torch.tanh(self.first(torch.cat([x, time], -1))))


def spirals(points, generator):
    """Two arms of 1.5 turns, with noise: points (points, 2) and classes."""
    label = torch.arange(points) % 2
    radius = torch.rand(points, generator=generator).sqrt()
    angle = 3 * math.pi * radius + math.pi * label
    x = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
    return 2 * x + 0.04 * torch.randn(points, 2, generator=generator), label


def digits():
    """The 8 × 8 digits of scikit-learn, scaled to about unit size."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return torch.from_numpy(x).float() / 8 - 1, torch.from_numpy(y)


@functools.cache
def trained(task, seed):
    """Train; return (field in float64, fitting inputs, held-out inputs, accuracy on the held-out).

    Inputs are those of the field, after the encoder.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if task == "spiral":
            model, (x, y), (x_new, y_new) = Classifier(2, 2, 32, 2), spirals(512, generator), spirals(512, generator)
            iterations, size = 1500, 256
        else:
            model, (x, y) = Classifier(64, 16, 64, 10), digits()
            order = torch.randperm(len(x), generator=generator)
            x_new, y_new, x, y = x[order[1200:]], y[order[1200:]], x[order[:1200]], y[order[:1200]]
            iterations, size = 600, 128
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    for _ in range(iterations):
        batch = torch.randperm(len(x), generator=generator)[:size]
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        accuracy = float((model(x_new).argmax(1) == y_new).float().mean())
        model.double().requires_grad_(False)
        return model.field, model.encoder(x.double()), model.encoder(x_new.double()), accuracy
