"""Mixed precision: the parameters are the master weights in float32, and move as such; other masters are refused."""

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision

import gaugefix
from gaugefix import GaugeProjection
from gaugefix.errors import TransportError
from gaugefix.testing import tolerance
from tests.callbacks.small_fits import Announced, Fitted, Outputs, ResidualNorm, change, data, mlp, trainer, unbalance_


def mixed(precision):
    """As settings of a Trainer; a GradScaler for the CPU has to be handed over."""
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    return (
        {"plugins": [MixedPrecision(precision, "cpu", scaler=scaler)]}
        if precision == "16-mixed"
        else {"precision": precision}
    )


@pytest.mark.parametrize("kind", [Announced, Fitted])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("slice", ["minimal_norm", "flat"])
@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_master_weights_move_in_their_own_precision(precision, slice, fused, kind):
    """24 eps of float32, not of the type that autocast rounds products to."""
    model = kind(unbalance_(ResidualNorm()), fused=fused)
    before, after = Outputs(), Outputs()
    projection = GaugeProjection(slice, every_n_steps=2)
    t = trainer(before, projection, after, max_steps=6, gradient_clip_val=None if fused else 0.5, **mixed(precision))
    t.fit(model, data())
    assert change(before, after) <= tolerance(torch.float32)
    assert 0.0 < projection.invariance_error <= tolerance(torch.float32)
    assert (projection.projections, projection.rolled_back) == (4, 0)
    states = [s[key] for s in t.optimizers[0].state.values() for key in ("exp_avg", "exp_avg_sq")]
    assert {tensor.dtype for tensor in (*model.parameters(), *states)} == {torch.float32}
    if slice == "minimal_norm":
        assert gaugefix.drift(model if kind is Announced else model.net, projection.gauge).total <= 1e-3


class MasterSGD(torch.optim.SGD):
    """Keeps parameters in float32 beside those in half precision, as its state."""

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if "master" not in state:
                    state["master"] = p.detach().float().clone()
                state["master"].sub_(p.grad.float(), alpha=group["lr"])
                p.copy_(state["master"])
        return loss


class Masters(Announced):
    def configure_optimizers(self):
        return MasterSGD(self.parameters(), lr=0.0)


def test_master_weights_in_the_state_of_an_optimizer_are_refused_or_made_anew():
    """A projection would be undone by the next step: the masters are in the old gauge."""
    fit = {"max_steps": 4, "precision": "bf16-true"}
    with pytest.raises(TransportError, match=r"known state entries .* for MasterSGD, got 'master' .*='reset' to clear"):
        trainer(GaugeProjection(every_n_steps=2), **fit).fit(Masters(mlp()), data())
    drifts = []
    for policy in ("reset", "ignore"):
        model = Masters(unbalance_(mlp()))
        projection = GaugeProjection(every_n_steps=3, at_start=False, unknown_optimizer=policy)
        trainer(projection, **fit).fit(model, data())
        assert (projection.projections, projection.rolled_back) == (1, 0)
        drifts.append(gaugefix.drift(model, projection.gauge).total)
    assert drifts[0] < 0.05 < 1.0 < drifts[1]
