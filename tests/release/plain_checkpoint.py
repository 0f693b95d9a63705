"""A checkpoint that was written with gaugefix is anybody's: run by .ci/run and by test_plain_checkpoint.py.

python plain_checkpoint.py write DIR     where gaugefix is installed
python plain_checkpoint.py read DIR      where it is not
"""

import importlib
import json
import sys
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

WRITTEN, RESUMED = 12, 18
OURS = ("GaugeProjection", "OrbitDrift", "GaugeRegularizer")


class Plain(pl.LightningModule):
    """A module that knows nothing of gaugefix."""

    def __init__(self, hidden=16, lr=1e-2):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Linear(4, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.head = nn.Linear(hidden, 2)

    def forward(self, x):
        return self.head(self.net(x))

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)


class OptimizerAtStart(pl.Callback):
    """Keeps the optimizer's state as a fit found it."""

    def on_train_start(self, trainer, pl_module):
        states = trainer.optimizers[0].state
        self.moments = [states[p]["exp_avg"].clone() for p in pl_module.parameters()]


def data():
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), 16)


def trainer(steps, *callbacks):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(accelerator="cpu", devices=1, max_steps=steps, callbacks=list(callbacks), **quiet)


def write(folder):
    """Train with three callbacks of ours; leave the checkpoint, the pickled network, and what they compute."""
    import gaugefix

    torch.manual_seed(0)
    model = Plain(hidden=24)
    with torch.no_grad():
        model.net[3].weight.mul_(5.0)
    acting = [
        gaugefix.GaugeProjection("minimal_norm", every_n_steps=4),
        gaugefix.OrbitDrift(every_n_steps=2),
        gaugefix.GaugeRegularizer("charge", strength=1e-2),
    ]
    keep = ModelCheckpoint(folder, filename="plain", every_n_train_steps=WRITTEN)
    t = trainer(WRITTEN, keep, *acting)
    t.fit(model, data(), data())
    assert acting[0].projections >= 3, acting[0].projections
    (scores,) = t.validate(model, data(), verbose=False)
    model.eval()
    x = torch.randn(7, 4)
    torch.save(model.net, folder / "net.pt")  # a whole pickled module: no hook of ours may hang on it
    torch.save({"x": x, "y": model(x).detach(), "inner": model.net(x).detach(), **scores}, folder / "expected.pt")
    return {"steps": t.global_step, "projections": acting[0].projections}


def refuse_gaugefix():
    """See that gaugefix is neither imported nor can be."""
    try:
        importlib.import_module("gaugefix")
    except ModuleNotFoundError:
        return
    raise AssertionError("Expected an environment without gaugefix, got one where it can be imported.")


def read(folder):
    """Do everything that one does with a checkpoint; return what was seen."""
    refuse_gaugefix()
    path, expected = folder / "plain.ckpt", torch.load(folder / "expected.pt", weights_only=True)
    saved = torch.load(path, weights_only=True)
    ours = [key for key in saved["callbacks"] if key.startswith(OURS)]
    assert len(ours) == len(OURS), ours

    model = Plain.load_from_checkpoint(path).eval()
    assert model.hparams.hidden == 24
    assert torch.equal(model(expected["x"]), expected["y"])
    (scores,) = trainer(0).validate(Plain(hidden=24), data(), ckpt_path=path, verbose=False)
    assert scores["val_loss"] == float(expected["val_loss"]), (scores, expected["val_loss"])
    net = torch.load(folder / "net.pt", weights_only=False)
    assert torch.equal(net(expected["x"]), expected["inner"])

    resumed, start = Plain(hidden=24), OptimizerAtStart()
    t = trainer(RESUMED, start, ModelCheckpoint(folder / "resumed"))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        t.fit(resumed, data(), data(), ckpt_path=path)
    moments = saved["optimizer_states"][0]["state"]
    assert all(torch.equal(moment, moments[k]["exp_avg"]) for k, moment in enumerate(start.moments))
    assert t.global_step == RESUMED
    assert all(p.isfinite().all() for p in resumed.parameters())
    assert not torch.equal(resumed.head.weight, model.head.weight)
    said = [str(w.message) for w in seen if any(name in str(w.message) for name in OURS)]
    again = torch.load(t.checkpoint_callback.best_model_path, weights_only=True)
    left = [key for key in again["callbacks"] if key.startswith(OURS)]
    return {"keys": ours, "said": said, "left": left, "torch": torch.__version__, "lightning": pl.__version__}


if __name__ == "__main__":
    torch.set_num_threads(1)  # writer and reader compute the same bits
    command, place = sys.argv[1:]
    found = {"write": write, "read": read}[command](Path(place))
    print(json.dumps(found))  # noqa: T201
