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
    """Two arms of one turn, with noise: points (points, 2) and classes."""
    arm = torch.arange(points) % 2
    radius = (0.01 + 0.99 * torch.rand(points, generator=generator)).sqrt()
    angle = 2 * math.pi * radius + math.pi * arm
    x = radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    return x + 0.03 * torch.randn(points, 2, generator=generator), arm


def digits():
    """The 8 × 8 digits of scikit-learn, standardised."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = torch.from_numpy(x).float()
    return (x - x.mean()) / x.std(), torch.from_numpy(y)


@functools.cache
def trained(task, seed):
    """Train, with the settings of the recipe: spirals in 4 dimensions, or digits in 16.

    Returns:
        The field in float64, inputs to fit on and held-out ones (both after the encoder), and the accuracy on these.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if task == "spiral":
            model, (x, y), iterations, lr = Classifier(2, 4, 32, 2), spirals(1500, generator), 720, 1e-2
        else:
            model, (x, y), iterations, lr = Classifier(64, 16, 64, 10), digits(), 880, 1e-3
    order = torch.randperm(len(x), generator=generator)
    split = len(x) // 5
    x_new, y_new, x, y = x[order[:split]], y[order[:split]], x[order[split:]], y[order[split:]]
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(iterations):
        batch = torch.randint(len(x), (64,), generator=generator)
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        accuracy = float((model(x_new).argmax(1) == y_new).float().mean())
        model.double().requires_grad_(False)
        return model.field, model.encoder(x.double()), model.encoder(x_new.double()), accuracy
