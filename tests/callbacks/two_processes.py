"""Trains on two processes with DDP and prints how much they differ: run by test_ddp.py.

One process forks the other, so that they import once and live through several fits, errors included.
"""

import dataclasses
import json
import os
import socket
import sys

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed, nn
from torch.utils.data import DataLoader, TensorDataset

from gaugefix import GaugeProjection, GaugeRegularizer, OrbitDrift, discover
from gaugefix.callbacks import NoetherCharges, VerticalFraction, gauge_projection, guard, use_gauge
from gaugefix.callbacks.interval import Interval
from gaugefix.errors import GaugeError


class Model(pl.LightningModule):
    """Batch norm, and a first layer that is far too large."""

    def __init__(self, activation=nn.ReLU):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), activation(), nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
        with torch.no_grad():
            self.net[0].weight.mul_(4.0)

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return self(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


class Announced(Model):
    def __init__(self, activation=nn.ReLU):
        super().__init__(activation)
        self.example_input_array = torch.ones(3, 4)


def fit(model, *callbacks, strategy=None, **settings):
    torch.manual_seed(1)
    data = DataLoader(TensorDataset(torch.randn(160, 4)), 5)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy or DDPStrategy(process_group_backend="gloo"),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **{"max_steps": 8, **settings},
    )
    trainer.fit(model, data)
    return trainer, model


def between(tensors):
    """Largest difference between the processes."""
    flat = torch.cat([t.detach().double().reshape(-1) for t in tensors])
    others = [torch.empty_like(flat) for _ in range(2)]
    distributed.all_gather(others, flat)
    return float((others[0] - others[1]).abs().max())


def compared(projection, *more, **settings):
    drift, charges, vertical = OrbitDrift(every_n_steps=6), NoetherCharges(every_n_steps=4), VerticalFraction(4)
    trainer, model = fit(Model(), projection, drift, charges, vertical, *more, **settings)
    states = [s[key] for s in trainer.optimizers[0].state.values() for key in ("exp_avg", "exp_avg_sq")]
    moments = projection._watch.moments.state_dict() if projection.slice == "flat" else {"squares": {}}
    return {
        "difference": between(model.parameters()),
        "difference of states": between(states),
        "difference of moments": between([*moments["squares"].values(), torch.zeros(1)]),
        "moments": len(moments["squares"]),
        "history": projection.history,
        "rolled_back": projection.rolled_back,
        "measured": everywhere((drift.last.total, charges.last, vertical.last)),
    }


def everywhere(value):
    values = [None, None]
    distributed.all_gather_object(values, value)
    return values


def rolled_back():
    """One process sees another output: both take everything back, bit by bit."""
    change, ask = guard.relative_change, guard.change_in_double
    rank = distributed.get_rank()
    guard.relative_change = lambda *given: max(change(*given), float(rank))
    guard.change_in_double = lambda *given: max(ask(*given), float(rank))
    try:
        projection = GaugeProjection(every_n_steps=3)
        with_it = fit(Announced(), projection)[1].state_dict()
    finally:
        guard.relative_change, guard.change_in_double = change, ask
    without = fit(Announced())[1].state_dict()
    same = all(torch.equal(t, without[name]) for name, t in with_it.items())
    return everywhere((projection.projections, projection.skipped, projection.rolled_back, same))


def one_is_not_finite():
    """Running averages of one process are NaN: they are its own, and training does not read them."""

    class Spoiled(Announced):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if batch_idx == 3 and self.global_rank == 1:
                self.net[3].running_mean[0] = float("nan")

    projection = GaugeProjection("unit_norm", every_n_steps=3)
    strategy = DDPStrategy(process_group_backend="gloo", broadcast_buffers=False)
    _, model = fit(Spoiled(), projection, strategy=strategy)
    counts = everywhere((projection.projections, projection.skipped, projection.rolled_back))
    return {"counts": counts, "difference": between(model.parameters())}


def steps_of_an_interval():
    """The second process finds every drift large: alone it would project more often."""
    projection = GaugeProjection()
    projection._counter.every, projection._interval = 2, Interval(2)
    size = gauge_projection._size
    rank = distributed.get_rank()
    gauge_projection._size = lambda *given: 1e-3 + 10.0 * rank
    try:
        fit(Announced(), projection, max_steps=15)
    finally:
        gauge_projection._size = size
    return everywhere([entry["step"] for entry in projection.history])


class Freezing(pl.Callback):
    """Freezes one parameter on one process, behind the back of DDP."""

    def on_fit_start(self, trainer, pl_module):
        pl_module.net[0].bias.requires_grad_(trainer.global_rank == 0)


class Untraceable(nn.ReLU):
    def forward(self, x):
        return super().forward(x) if float(x.sum()) > -1e9 else x


def given_by_hand(change):
    model = Announced()
    use_gauge(model, change(discover(model, (torch.ones(3, 4),))))
    return model


def without_scale(gauge):
    return gauge.select(lambda s: s.name != "net.0:scale")


def fewer_legs(gauge):
    """As if a parameter took no part in a symmetry."""
    first, *others = gauge.symmetries
    return dataclasses.replace(gauge, symmetries=(dataclasses.replace(first, legs=first.legs[:-1]), *others))


def disagreeing():
    """What each process says where they found different groups, before any step."""
    second = distributed.get_rank() == 1
    cases = {
        "activation": lambda: fit(Announced(nn.Tanh if second else nn.ReLU), GaugeProjection()),
        "activation, first batch": lambda: fit(Model(nn.Tanh if second else nn.ReLU), GaugeProjection()),
        "frozen": lambda: fit(Announced(), Freezing(), OrbitDrift()),
        "by hand": lambda: fit(given_by_hand(without_scale) if second else Announced(), GaugeProjection()),
        "legs": lambda: fit(given_by_hand(fewer_legs) if second else Announced(), GaugeProjection()),
        "no example": lambda: fit(Model() if second else Announced(), GaugeProjection()),
        "error": lambda: fit(Announced(Untraceable if second else nn.ReLU), GaugeProjection()),
        "regularizer": lambda: fit(Model(nn.Tanh if second else nn.ReLU), GaugeRegularizer()),
    }
    found = {}
    for name, case in cases.items():
        try:
            case()
            message = "no error"
        except GaugeError as error:
            message = f"{type(error).__name__}: {error}"
        found[name] = everywhere(message)
    return found


def main():
    report = {
        "minimal norm": compared(GaugeProjection(every_n_steps=3), GaugeRegularizer("charge", 0.1)),
        "flat": compared(GaugeProjection("flat", every_n_steps=3), accumulate_grad_batches=2),
        "spectral": compared(GaugeProjection("spectral", every_n_steps=3)),
        "rolled back": rolled_back(),
        "not finite": one_is_not_finite(),
        "interval": steps_of_an_interval(),
        "disagreeing": disagreeing(),
    }
    if distributed.get_rank() == 0:
        sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    child = os.fork()
    rank = str(int(child == 0))
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank}  # as a launcher outside would
    main()
    if child:
        os.waitpid(child, 0)
