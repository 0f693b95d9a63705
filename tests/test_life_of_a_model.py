"""Any sequence of training, projecting, acting, saving, loading and changing optimizers leaves whole models.

A state machine of hypothesis draws the sequences. After every rule the function is what it should be, everything is
finite, and what is refused leaves every bit where it was.
"""

from __future__ import annotations

import copy
import io

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import gaugefix
from gaugefix.errors import ConvergenceWarning, NonFiniteError, SliceError, TransportError
from tests.slices.attention_nets import any_net

NETS = ("mlp", "residual conv", "gated", "bottleneck", "grouped queries", "post-norm encoder")
OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, 1e-3, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, 1e-3),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.5, centered=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, 1e-3),
}
TOLERANCE = 1e-9
"""Relative change of outputs in float64; elements of condition 1e2 on networks of a few layers."""


class Life(RuleBasedStateMachine):
    """One model with its optimizer."""

    @initialize(name=st.sampled_from(NETS), seed=st.integers(0, 5), optimizer=st.sampled_from(sorted(OPTIMIZERS)))
    def begin(self, name, seed, optimizer):
        self.model, self.gauge, self.batch = any_net(name, seed)
        self.target = torch.randn(self.outputs().shape, generator=torch.Generator().manual_seed(seed)).double()
        self.optimizer_named(optimizer)
        self.disk: bytes | None = None
        self.function = self.outputs()

    # ---- what a person does -----------------------------------------------------------------------------------------
    @rule(steps=st.integers(1, 3))
    def train(self, steps):
        for _ in range(steps):
            self.optimizer.zero_grad()
            (self.model(self.batch) - self.target).square().mean().backward()
            self.optimizer.step()
        self.function = self.outputs()

    @rule(slice=st.sampled_from(["minimal_norm", "spectral", "unit_norm"]), dyadic=st.booleans())
    def project(self, slice, dyadic):
        before = self.everything()
        try:
            gaugefix.project_(self.model, self.gauge, slice, [self.optimizer], dyadic and slice == "minimal_norm")
        except (SliceError, NonFiniteError):
            assert slice != "minimal_norm"
            self.unchanged_since(before)

    @rule(scale=st.floats(0.05, 0.5), seed=st.integers(0, 1000))
    def act(self, scale, seed):
        gaugefix.act_(self.model, self.gauge, self.gauge.random(scale, seed, discrete=True), [self.optimizer])

    @rule(scale=st.floats(0.05, 0.5), seed=st.integers(0, 1000))
    def there_and_back(self, scale, seed):
        before, element = self.everything(), self.gauge.random(scale, seed)
        gaugefix.act_(self.model, self.gauge, element, [self.optimizer])
        gaugefix.act_(self.model, self.gauge, self.gauge.inverse(element), [self.optimizer])
        for name, parameter in self.model.named_parameters():
            torch.testing.assert_close(parameter.detach(), before[name], rtol=1e-7, atol=1e-9)

    @rule(name=st.sampled_from(sorted(OPTIMIZERS)))
    def optimizer_named(self, name):
        self.optimizer = OPTIMIZERS[name](self.model.parameters())

    @rule()
    def save(self):
        file = io.BytesIO()
        torch.save({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}, file)
        self.disk, self.kind, self.saved = file.getvalue(), type(self.optimizer).__name__, self.function

    @precondition(lambda self: self.disk is not None)
    @rule()
    def load(self):
        saved = torch.load(io.BytesIO(self.disk), weights_only=True)
        self.model = copy.deepcopy(self.model)
        self.model.load_state_dict(saved["model"])
        self.optimizer_named(self.kind)
        self.optimizer.load_state_dict(saved["optimizer"])
        self.function = self.saved

    # ---- what goes wrong --------------------------------------------------------------------------------------------
    @rule()
    def an_optimizer_without_laws(self):
        strange = type("Strange", (torch.optim.Optimizer,), {"step": torch.optim.SGD.step})(self.model.parameters(), {})
        for p in self.model.parameters():
            strange.state[p] = {"something": torch.ones_like(p)}
        before = self.everything()
        with pytest.raises(TransportError):
            gaugefix.project_(self.model, self.gauge, "minimal_norm", [self.optimizer, strange])
        self.unchanged_since(before)

    @rule(where=st.integers(0, 1000))
    def a_weight_that_is_not_finite(self, where):
        parameters = dict(self.model.named_parameters())
        moved = [name for s in self.gauge.applied if s.group.dimension for name in s.parameters]
        names = [name for name in moved if name in parameters]  # not the statistics of a batch norm
        parameter = parameters[names[where % len(names)]]
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter.view(-1)[where % parameter.numel()] = float("nan")
        before = self.everything()
        with pytest.raises(NonFiniteError):
            gaugefix.project_(self.model, self.gauge, "minimal_norm", [self.optimizer])
        self.unchanged_since(before)
        with torch.no_grad():
            parameter.copy_(kept)

    # ---- what always holds ------------------------------------------------------------------------------------------
    @invariant()
    def the_function_is_what_it_should_be(self):
        if hasattr(self, "function"):
            now = self.outputs()
            assert float((now - self.function).norm() / self.function.norm()) < TOLERANCE

    @invariant()
    def everything_is_finite(self):
        if hasattr(self, "function"):
            assert all(bool(torch.isfinite(value).all()) for value in self.everything().values())

    def outputs(self):
        with torch.no_grad():
            return self.model(self.batch).clone()

    def everything(self):
        found = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        for k, parameter in enumerate(self.model.parameters()):
            if parameter.grad is not None:
                found[f"grad {k}"] = parameter.grad.clone()
            state = self.optimizer.state.get(parameter, {})
            found |= {f"{key} {k}": v.clone() for key, v in state.items() if isinstance(v, torch.Tensor)}
        return found

    def unchanged_since(self, before):
        now = self.everything()
        assert now.keys() == before.keys()
        assert all(torch.equal(value.nan_to_num(7.0), before[name].nan_to_num(7.0)) for name, value in now.items())


quick = settings(
    max_examples=12, stateful_step_count=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
thorough = settings(quick, max_examples=400, stateful_step_count=30, derandomize=False)

TestLife = pytest.mark.filterwarnings(f"ignore::{ConvergenceWarning.__module__}.ConvergenceWarning")(Life.TestCase)
TestLife.settings = quick


@pytest.mark.slow
class TestLongLives(Life.TestCase):
    settings = thorough
