"""Fits on two processes with fully_shard, in many circumstances, against one device and the same batches."""

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from gaugefix import GaugeProjection, GaugeRegularizer, NoetherCharges, OrbitDrift, VerticalFraction
from gaugefix.errors import SettingError
from gaugefix.sharding import rows_here
from tests.callbacks.two_sharded_processes import Model, apart, between_processes, fit, state_of, whole


class Trained(Model):
    """Other optimizers, precisions and ways to shard."""

    def __init__(self, kind, sharded, optimizer="AdamW", dtype=None, every=1, mesh_shape=None, **sharding):
        super().__init__(kind, sharded)
        self.optimizer, self.every, self.mesh_shape, self.sharding = optimizer, every, mesh_shape, sharding
        if dtype is not None:
            self.net[1] = torch.nn.Identity()  # a batch norm does not take two precisions
            self.net.to(dtype)
            self.example_input_array = self.example_input_array.to(dtype)

    def configure_model(self):
        if not self.sharded or isinstance(next(self.net.parameters()), DTensor):
            return
        mesh = self.device_mesh["data_parallel"]
        if self.mesh_shape is not None:
            mesh = init_device_mesh("cpu", self.mesh_shape, mesh_dim_names=("replicate", "shard"))
        for unit in list(self.net)[1:]:
            if any(True for _ in unit.parameters()):
                fully_shard(unit, mesh=mesh, **self.sharding)
        fully_shard(self.net, mesh=mesh, **self.sharding)

    def training_step(self, batch, batch_idx):
        if self.sharded and self.every > 1:
            self.net.set_requires_gradient_sync((batch_idx + 1) % self.every == 0)
        x = batch[0]
        if x.is_floating_point():
            x = x.to(self.example_input_array.dtype)
        return (self(x).to(torch.promote_types(x.dtype, torch.float32)) - 1.0).square().mean()

    def validation_step(self, batch, batch_idx):
        self(batch[0].to(self.example_input_array.dtype) if batch[0].is_floating_point() else batch[0])

    def configure_optimizers(self):
        settings = {"AdamW": {"lr": 1e-2, "weight_decay": 0.1}, "SGD": {"lr": 1e-2, "weight_decay": 0.1}}
        return getattr(torch.optim, self.optimizer)(self.parameters(), **settings[self.optimizer])


class Gradients(pl.Callback):
    """Records parameters and gradients at its place in the list of callbacks, whole."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        tensors = {name: whole(p).detach().clone() for name, p in pl_module.named_parameters()}
        self.seen.append((tensors, {name: whole(p.grad).clone() for name, p in pl_module.named_parameters()}))


def added(regularizer, before, after):
    """By how much what was added differs from the gradient of the term on whole parameters, relative to the latter."""
    worst = 0.0
    for (tensors, was), (_, now) in zip(before.seen, after.seen, strict=True):
        leaves = {name: t.requires_grad_() for name, t in tensors.items()}
        expected = {name: g.clone() for name, g in was.items()}
        regularizer.gauge_term.add_gradient_(regularizer.gauge, leaves, expected, regularizer.strength)
        size = max(float((expected[name] - was[name]).abs().max()) for name in was)
        worst = max(worst, max(float((expected[name] - now[name]).abs().max()) for name in was) / size)
    return worst


def compared(kind, term, steps, others=(), trainer=None, **settings):
    """A fit with a regularizer on shards, and one on a single device."""
    results = []
    for on_shards in (True, False):
        regularizer, before, after = GaugeRegularizer(term, 0.05), Gradients(), Gradients()
        callbacks = [before, regularizer, after, *(make() for make in others)]
        run, model, drifts = fit(
            kind,
            on_shards,
            *callbacks,
            steps=steps,
            epoch=8,
            model=Trained(kind, on_shards, **settings),
            log_every_n_steps=1,
            **trainer or {},
        )
        results.append((run, model, callbacks, drifts))
    (run, model, mine, drifts), (alone, plain, theirs, expected_drifts) = results
    state, expected = state_of(run, model), state_of(alone, plain)
    moments = [t for s in run.optimizers[0].state.values() for k, t in s.items() if k == "exp_avg"]
    projections = [[c for c in given if isinstance(c, GaugeProjection)] for given in (mine, theirs)]
    return {
        "added": added(mine[1], mine[0], mine[2]),
        "steps": len(mine[0].seen),
        "state": apart(expected, state),
        "processes": between_processes(state),
        "value": [mine[1].value, theirs[1].value],
        "sharded": len(moments) > 0 and all(isinstance(t, DTensor) for t in moments),
        "projections": [[entry["step"] for c in each for entry in c.history] for each in projections],
        "drifts": [drifts, expected_drifts],
        "rolled back": sum(c.rolled_back for c in projections[0]),
        "seconds": [c[1].seconds / len(mine[0].seen) for c in (mine, theirs)],
        "fewest rows": fewest_entries(model),
    }


def fewest_entries(model):
    """Of a parameter on a process."""
    least = torch.tensor([min(rows_here(p).numel() for p in model.parameters())])
    distributed.all_reduce(least, distributed.ReduceOp.MIN)
    return int(least)


def in_precision(dtype, term, **sharding):
    """What is added where gradients are computed, reduced or kept in half precision."""
    regularizer, before, after = GaugeRegularizer(term, 0.05), Gradients(), Gradients()
    model = Trained("mlp", True, dtype=dtype, **sharding)
    run, model, _ = fit("mlp", True, before, regularizer, after, steps=2, model=model, log_every_n_steps=1)
    kinds = {str(g.dtype) for _, now in after.seen for g in now.values()}
    return {
        "added": added(regularizer, before, after),
        "gradients": sorted(kinds),
        "finite": all(bool(torch.isfinite(t).all()) for t in state_of(run, model).values()),
    }


def charges():
    """The charges and their predictions in a fit with weight decay, on shards and on one device."""
    found = []
    for on_shards in (True, False):
        noether = NoetherCharges(every_n_steps=2)
        fit("mlp", on_shards, noether, steps=4, model=Trained("mlp", on_shards, "SGD"))
        found.append([noether.last, noether.predicted])
    return found


def resumed(folder, distributed_checkpoint):
    """Two steps, a checkpoint, and two more, against four; all with one batch, for loaders begin anew."""

    def run(steps, checkpoint=None):
        given = (
            GaugeRegularizer("charge", 0.05, every_n_steps=2),
            GaugeProjection("unit_norm", every_n_steps=3),
            NoetherCharges(2),
            OrbitDrift(2, slice="unit_norm"),
        )
        strategy = ModelParallelStrategy(
            2, 1, save_distributed_checkpoint=distributed_checkpoint, process_group_backend="gloo"
        )
        trainer, model, drifts = fit(
            "mlp",
            True,
            *given,
            steps=steps,
            epoch=1,
            checkpoint=checkpoint,
            model=Trained("mlp", True, reshard_after_forward=False),
            strategy=strategy,
        )
        return trainer, state_of(trainer, model), given, drifts

    path = str(folder / f"distributed {distributed_checkpoint}")
    run(2)[0].save_checkpoint(path)
    _, state, mine, drifts = run(4, path)
    _, expected, theirs, every = run(4)
    return {
        "same": all(torch.equal(t, expected[name]) for name, t in state.items()),
        "moments": sum(name.endswith("exp_avg") for name in state),
        "calls": [given[0]._calls for given in (mine, theirs)],
        "steps": [[entry["step"] for entry in given[1].history] for given in (mine, theirs)],
        "charges": [given[2].last for given in (mine, theirs)],
        "drifts": [drifts, every[-len(drifts) :]],
        "recognised": all(c._saved_parameters is None for c in mine),
    }


def refused():
    """What is refused by a real Trainer with a real strategy, on both processes, before the first step."""
    plane = {"mesh_shape": (1, 2)}
    cases = {
        "path_norm": (GaugeRegularizer("path_norm"), {}, {}),
        "reference": (GaugeRegularizer("reference"), {}, {}),
        "vertical fraction": (VerticalFraction(), {}, {}),
        "HSDP": (GaugeRegularizer(), plane, {}),
        "HSDP, projected": (GaugeProjection(), plane, {}),
        "tensor parallel": (GaugeRegularizer(), {}, {"strategy": ModelParallelStrategy(1, 2)}),
    }
    messages = {}
    for name, (callback, sharding, settings) in cases.items():
        last = Last()
        try:
            fit("mlp", True, callback, last, steps=1, model=Trained("mlp", True, **sharding), **settings)
        except SettingError as error:
            both = [None, None]
            distributed.all_gather_object(both, [str(error), last.steps])
            messages[name] = both
    return messages


class Last(pl.Callback):
    """Counts batches."""

    def __init__(self):
        self.steps = 0

    def on_train_batch_start(self, *_):
        self.steps += 1


def all_of_them(folder):
    """By circumstance."""
    slices = (lambda: GaugeProjection("unit_norm", every_n_steps=2), lambda: OrbitDrift(2, slice="unit_norm"))
    half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    return {
        "without sync": compared(
            "mlp", "charge", 4, slices, {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5}, every=2
        ),
        "blocks": compared(
            "attention",
            "balance",
            3,
            (),
            {"gradient_clip_val": 0.05, "gradient_clip_algorithm": "value"},
            reshard_after_forward=False,
        ),
        "half precision": {
            "forward": in_precision(torch.float32, "charge", mp_policy=half),
            "parameters": in_precision(torch.bfloat16, "balance", mp_policy=half),
        },
        "charges": charges(),
        "resumed": [resumed(folder, True), resumed(folder, False)],
        "refused": refused(),
    }
