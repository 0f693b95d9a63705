"""Small networks in a real Trainer."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gaugefix
from gaugefix.callbacks import use_gauge
from gaugefix.errors import NoEffectWarning, ProjectionWarning
from gaugefix.groups import PositiveScaling
from gaugefix.testing import Probe, relative_change

INPUTS, CLASSES = 6, 3


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(INPUTS, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, CLASSES))


class ResidualNorm(nn.Module):
    """Biases, a batch norm with live statistics and a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.inner = nn.Linear(INPUTS, 8), nn.BatchNorm1d(8), nn.Linear(8, 8)
        self.between, self.last = nn.Linear(8, 8), nn.Linear(8, CLASSES)

    def forward(self, x):
        h = self.norm(self.first(x)).relu()
        h = h + self.between(self.inner(h).relu())
        return self.last(h.relu())


@torch.no_grad()
def unbalance_(module: nn.Module, factor: float = 4.0) -> nn.Module:
    """Make the first layer large: far from every slice."""
    for name, parameter in module.named_parameters():
        if name.split(".")[-2] in ("0", "first"):
            parameter.mul_(factor)
    return module


def use_false_gauge(model: nn.Module) -> None:
    """Make the callbacks believe that weights may be scaled without the bias beside them."""
    use_gauge(model, gaugefix.declare(model, PositiveScaling(8), {"net.0.weight": 0}, {"net.2.weight": 1}))


class Fitted(pl.LightningModule):
    """Trains ``net``; its own forward is never called, as in many a LightningModule."""

    def __init__(self, net: nn.Module, optimizer: str = "Adam", lr: float = 1e-2, **settings) -> None:
        super().__init__()
        self.net = net
        self.settings = (optimizer, {"lr": lr, **settings})
        self.losses: list[float] = []

    def predict(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.predict(x), y)

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if outputs:
            self.losses.append(float(outputs["loss"]))

    def configure_optimizers(self):
        name, settings = self.settings
        return getattr(torch.optim, name)(self.parameters(), **settings)


class Forwarding(Fitted):
    """The usual LightningModule, with a forward."""

    def predict(self, x):
        return self(x)

    def forward(self, x):
        return self.net(x)


class Announced(Forwarding):
    """And with an example input, so that everything is known before the first batch."""

    def __init__(self, net: nn.Module, *args, **kwargs) -> None:
        super().__init__(net, *args, **kwargs)
        generator = torch.Generator().manual_seed(7)
        self.example_input_array = torch.randn(4, INPUTS, dtype=next(net.parameters()).dtype, generator=generator)


def data(batches: int = 20, batch_size: int = 5, dtype: torch.dtype = torch.float32, seed: int = 0) -> DataLoader:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batches * batch_size, INPUTS, generator=generator, dtype=dtype)
    y = x[:, :CLASSES].argmax(1)
    return DataLoader(TensorDataset(x, y), batch_size)


def trainer(*callbacks, package=pl, **settings):
    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
    }
    return package.Trainer(callbacks=list(callbacks), **{**quiet, **settings})


@contextmanager
def warned() -> Iterator[list[str]]:
    """Collect what gaugefix warns of; every other warning stays an error."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as seen:
        for category in (NoEffectWarning, ProjectionWarning):
            warnings.filterwarnings("always", category=category)
        yield messages
    messages += [str(w.message) for w in seen]


class Outputs(pl.Callback):
    """Records what the network computes on fixed inputs, at the place in the callback list where it stands."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.inputs = torch.randn(16, INPUTS, dtype=dtype, generator=torch.Generator().manual_seed(9))
        self.seen: dict[int, list[torch.Tensor]] = {}

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        self.seen[trainer.global_step] = Probe(pl_module.net, (self.inputs,))()


def change(before: Outputs, after: Outputs) -> float:
    """Largest relative difference between two recorders in one list."""
    assert before.seen.keys() == after.seen.keys()
    assert before.seen
    return max(relative_change(a, after.seen[step]) for step, a in before.seen.items())


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(module.state_dict())


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
