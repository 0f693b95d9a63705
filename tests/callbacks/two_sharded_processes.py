"""Trains on two processes with fully_shard (ModelParallelStrategy) and on one device with the same batches.

Prints what test_sharded.py compares, as JSON.
"""

import json
import sys
import weakref
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.utils.data import DataLoader, TensorDataset

from gaugefix import GaugeProjection, OrbitDrift
from gaugefix.callbacks import guard
from gaugefix.errors import SettingError
from gaugefix.functional import slice_residual
from gaugefix.sharding import place, place_of, shards

HIDDEN, VOCABULARY = 12, 11


class Block(nn.Module):
    """Causal attention of two heads and a ReLU layer, behind layer norms."""

    def __init__(self):
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(HIDDEN), nn.Linear(HIDDEN, 3 * HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.norm2, self.up, self.down = nn.LayerNorm(HIDDEN), nn.Linear(HIDDEN, 15), nn.Linear(15, HIDDEN)

    def forward(self, x):
        batch, length, size = x.shape
        q, k, v = self.qkv(self.norm(x)).view(batch, length, 3, 2, size // 2).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, size))
        return x + self.down(self.up(self.norm2(x)).relu())


def mlp():
    """Uneven shards (7 rows, 5, 9 and 1 on two processes), a batch norm, and two maps without anything in between."""
    return nn.Sequential(
        nn.Linear(6, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 5), nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 1)
    )


@torch.no_grad()
def unbalance_(net):
    """Out of balance, and biases other than zero."""
    for k, parameter in enumerate(net.parameters()):
        parameter.mul_(1.0 + 0.7 * (k % 3)).add_(0.05 * torch.randn_like(parameter))


def attention():
    return nn.Sequential(
        nn.Embedding(VOCABULARY, HIDDEN), Block(), Block(), nn.LayerNorm(HIDDEN), nn.Linear(HIDDEN, VOCABULARY)
    )


@torch.no_grad()
def scrambled():
    """Coordinates of condition e¹² between two linear maps, in float32."""
    net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    u, v = (torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0] for _ in range(2))
    g = (u * torch.linspace(0.0, 12.0, 6).double().exp()) @ v.mT
    net[0].weight.copy_(g @ net[0].weight)
    net[0].bias.copy_(g @ net[0].bias)
    net[1].weight.copy_(net[1].weight @ g.inverse())
    return net.float()


def batches(kind, count):
    generator = torch.Generator().manual_seed(1)
    if kind == "attention":
        return DataLoader(TensorDataset(torch.randint(0, VOCABULARY, (4 * count, 7), generator=generator)), 4)
    dtype = torch.float32 if kind == "scrambled" else torch.float64
    return DataLoader(TensorDataset(torch.randn(10 * count, 6, generator=generator, dtype=dtype)), 10)


class Model(pl.LightningModule):
    def __init__(self, kind, sharded):
        super().__init__()
        torch.manual_seed(0)
        self.net = scrambled() if kind == "scrambled" else {"mlp": mlp, "attention": attention}[kind]().double()
        if kind != "scrambled":
            unbalance_(self.net)
        self.kind, self.sharded = kind, sharded
        if kind != "attention":
            self.example_input_array = torch.randn(4, 6, dtype=next(self.net.parameters()).dtype)

    def configure_model(self):
        if self.sharded and not isinstance(next(self.net.parameters()), DTensor):
            mesh = self.device_mesh["data_parallel"]
            for unit in list(self.net)[1:]:  # the parameters of the first one belong to the outermost unit
                if any(True for _ in unit.parameters()):
                    fully_shard(unit, mesh=mesh)
            fully_shard(self if self.kind == "attention" else self.net, mesh=mesh)

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return (self(batch[0]) - 1.0).square().mean()

    def validation_step(self, batch, batch_idx):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


class History(pl.loggers.logger.DummyLogger):
    def __init__(self):
        super().__init__()
        self.drifts = []

    def log_metrics(self, metrics, step=None):
        self.drifts += [metrics["gauge/drift"]] if "gauge/drift" in metrics else []


def fit(kind, sharded, *callbacks, steps=8, epoch=4, checkpoint=None, model=None, **settings):
    history = History()
    strategy = ModelParallelStrategy(2, 1, process_group_backend="gloo") if sharded else "auto"
    usual = {
        "accelerator": "cpu",
        "devices": 2 if sharded else 1,
        "strategy": strategy,
        "max_steps": steps,
        "val_check_interval": 3,
        "limit_val_batches": 1,
        "num_sanity_val_steps": 1,
        "check_val_every_n_epoch": None,
        "use_distributed_sampler": False,  # both processes see the batches of the single one
        "logger": history,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks": list(callbacks),
    }
    trainer = pl.Trainer(**{**usual, **settings})
    model = Model(kind, sharded) if model is None else model
    trainer.fit(model, batches(kind, epoch), batches(kind, 1), ckpt_path=checkpoint)
    return trainer, model, history.drifts


def callbacks():
    return GaugeProjection(every_n_steps=3), OrbitDrift(every_n_steps=4)


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def state_of(trainer, model):
    """Parameters, buffers and Adam's moments, whole, by name."""
    found = {name: whole(t).detach() for name, t in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        state = trainer.optimizers[0].state[parameter]
        found |= {f"{name}/{key}": whole(state[key]) for key in ("exp_avg", "exp_avg_sq")}
    return found


def apart(one, two):
    """Largest difference, relative to the largest entry of the same kind of tensor."""
    sizes = {}
    for name, t in one.items():
        kind = name.partition("/")[2]
        sizes[kind] = max(sizes.get(kind, 0.0), float(t.abs().max()))
    assert one.keys() == two.keys()
    return max(float((t - two[name]).abs().max()) / sizes[name.partition("/")[2]] for name, t in one.items())


def between_processes(state):
    flat = torch.cat([t.double().reshape(-1) for t in state.values()])
    others = [torch.empty_like(flat) for _ in range(2)]
    distributed.all_gather(others, flat)
    return float((others[0] - others[1]).abs().max())


def compared(kind, steps):
    """One fit on shards and one on a single device."""
    given = callbacks()
    trainer, model, drifts = fit(kind, True, *given, steps=steps)
    state = state_of(trainer, model)
    residual = slice_residual(model, given[0].gauge)
    local = sum(p.to_local().numel() for p in model.parameters())
    alone = callbacks()
    reference, plain, expected = fit(kind, False, *alone, steps=steps)
    return {
        "state": apart(state_of(reference, plain), state),
        "processes": between_processes(state),
        "drifts": [drifts, expected],
        "invariance": max(entry["invariance_error"] for entry in given[0].history),
        "steps": [[entry["step"] for entry in c[0].history] for c in (given, alone)],
        "before": [[entry["drift_before"] for entry in c[0].history] for c in (given, alone)],
        "residuals": [residual, slice_residual(plain, alone[0].gauge)],
        "rolled back": given[0].rolled_back,
        "group": str(given[0].gauge) == str(alone[0].gauge),
        "share of rows": local / sum(p.numel() for p in plain.parameters()),
        "seconds": [c[0].seconds / c[0].projections for c in (given, alone)],
    }


def gathered_at_once(report):
    """Without the room that small models have: how much is gathered at once, of all parameters in float64."""
    floor, gather = shards._FLOOR, place.Place.gather
    alive, most = [0], [0]

    def watched(self, rows):
        result = gather(self, rows)
        size = result.numel() * result.element_size()
        alive[0] += size
        most[0] = max(most[0], alive[0])
        weakref.finalize(result.untyped_storage(), lambda: alive.__setitem__(0, alive[0] - size))
        return result

    shards._FLOOR, place.Place.gather = 0, watched
    try:
        report["attention"] = compared("attention", 5)
    finally:
        shards._FLOOR, place.Place.gather = floor, gather
    total = sum(p.numel() * p.element_size() for p in Model("attention", False).parameters())
    report["gathered at once"] = most[0] / total


def resumed(folder):
    """Four steps, a checkpoint, and four more, against eight; all with one batch, for loaders begin anew."""
    trainer, model, _ = fit("mlp", True, *callbacks(), steps=4, epoch=1)
    trainer.save_checkpoint(folder / "sharded")
    given = callbacks()
    trainer, model, _ = fit("mlp", True, *given, epoch=1, checkpoint=str(folder / "sharded"))
    state = state_of(trainer, model)
    whole_run, plain, _ = fit("mlp", True, *callbacks(), epoch=1)
    expected = state_of(whole_run, plain)
    return {
        "same": all(torch.equal(t, expected[name]) for name, t in state.items()),
        "steps": [entry["step"] for entry in given[0].history],
    }


def rolled_back():
    """One of two processes sees another output: both take everything back, bit by bit."""
    change, ask = guard.relative_change, guard.change_in_double_of_shards
    rank = distributed.get_rank()
    guard.relative_change = lambda *given: max(change(*given), float(rank))
    guard.change_in_double_of_shards = lambda *given: max(ask(*given), float(rank))
    try:
        projection = GaugeProjection(every_n_steps=4)
        with_it = state_of(*fit("mlp", True, projection, steps=6)[:2])
    finally:
        guard.relative_change, guard.change_in_double_of_shards = change, ask
    without = state_of(*fit("mlp", True, steps=6)[:2])
    same = all(torch.equal(t, without[name]) for name, t in with_it.items())
    counts = [None, None]
    distributed.all_gather_object(counts, (projection.rolled_back, projection.projections, same))
    return counts


def badly_mixed():
    """In float32 a network in bad coordinates computes other outputs once it is balanced; in float64 it does not."""
    opinions, ask = [], guard.change_in_double_of_shards
    guard.change_in_double_of_shards = lambda *given: opinions.append(ask(*given)) or opinions[-1]
    try:
        projection = GaugeProjection(every_n_steps=4)
        fit("scrambled", True, projection, steps=1)
    finally:
        guard.change_in_double_of_shards = ask
    return {"opinions": opinions, "projections": projection.projections, "rolled back": projection.rolled_back}


def refused():
    """Placements that are not rows on one mesh dimension."""
    line, plane = init_device_mesh("cpu", (2,)), init_device_mesh("cpu", (1, 2))
    messages = []
    for mesh, placements in ((line, [Shard(1)]), (plane, [Replicate(), Shard(0)])):
        try:
            place_of("net.weight", distribute_tensor(torch.ones(4, 4), mesh, placements))
        except SettingError as error:
            messages.append(str(error))
    for wrong in (GaugeProjection("flat"), OrbitDrift(slice="spectral")):
        try:
            fit("mlp", True, wrong, steps=1)
        except SettingError as error:
            messages.append(str(error))
    return messages


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = {"mlp": compared("mlp", 8)}
    gathered_at_once(found)
    found["resumed"] = resumed(Path(sys.argv[1]))
    found["rolled back"] = rolled_back()
    found["badly mixed"] = badly_mixed()
    found["refused"] = refused()
    if distributed.get_rank() == 0:
        sys.stdout.write(json.dumps(found) + "\n")
