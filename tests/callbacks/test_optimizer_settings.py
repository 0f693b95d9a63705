"""Parameter groups and schedulers: projections neither disturb them nor are disturbed."""

import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor

from gaugefix import GaugeProjection, OrbitDrift
from gaugefix.testing import tolerance
from tests.callbacks.small_fits import Announced, Outputs, change, data, mlp, trainer, unbalance_
from tests.callbacks.test_loops import Validated
from tests.callbacks.test_orbit_drift import Memory


class Grouped(Announced):
    """Units whose incoming and outgoing weights have other learning rates and weight decays, and biases none."""

    def configure_optimizers(self):
        layers = [self.net[0], self.net[2], self.net[4]]
        groups = [{"params": [m.weight], "lr": 10.0**-k, "weight_decay": 0.1 * k} for k, m in enumerate(layers, 2)]
        groups.append({"params": [m.bias for m in layers], "weight_decay": 0.0})
        return getattr(torch.optim, self.settings[0])(groups, **self.settings[1])


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
@pytest.mark.parametrize("slice", ["minimal_norm", "flat"])
def test_units_that_two_parameter_groups_share(optimizer, slice):
    model = Grouped(unbalance_(mlp()), optimizer, lr=1e-2)
    before, after = Outputs(), Outputs()
    projection = GaugeProjection(slice, every_n_steps=2)
    t = trainer(before, projection, after, max_steps=8)
    t.fit(model, data())
    assert change(before, after) <= tolerance(torch.float32)
    assert (projection.projections, projection.rolled_back) == (5, 0)
    assert [group["lr"] for group in t.optimizers[0].param_groups] == [1e-2, 1e-3, 1e-4, 1e-2]
    assert [group["weight_decay"] for group in t.optimizers[0].param_groups] == [0.2, 0.30000000000000004, 0.4, 0.0]


class Scheduled(Validated):
    """With a scheduler of learning rates."""

    def __init__(self, net, scheduler, interval, **settings):
        super().__init__(net, **settings)
        self.scheduler, self.interval = scheduler, interval

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss, on_epoch=True)
        return loss

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        scheduler = {"scheduler": self.scheduler(optimizer), "interval": self.interval, "monitor": "val_loss"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


SCHEDULERS = {
    "plateau": (lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=10.0), "epoch"),
    "one cycle": (lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=12), "step"),
    "cosine": (lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 3), "epoch"),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_see_the_same_steps(name):
    rates = []
    for gauged in (False, True):
        memory, before, after = Memory(), Outputs(), Outputs()
        projection, drift = GaugeProjection(every_n_steps=2), OrbitDrift(every_n_steps=2)
        model = Scheduled(unbalance_(mlp()), *SCHEDULERS[name])
        callbacks = (before, projection, drift, after) if gauged else ()
        t = trainer(*callbacks, LearningRateMonitor("step"), max_epochs=3, logger=memory)
        t.fit(model, data(4), data(2))
        rates.append([row["lr-Adam"] for _, row in memory.rows if "lr-Adam" in row])
    assert rates[0] == rates[1]
    assert len(set(rates[0])) > 2
    assert change(before, after) <= tolerance(torch.float32)
    assert projection.projections == 7
