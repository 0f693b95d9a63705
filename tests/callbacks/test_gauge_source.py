"""Which module is analysed, and with which inputs."""

import pytest
import torch
from torch import nn

import gaugefix
from gaugefix import GaugeProjection, OrbitDrift
from gaugefix.callbacks import gauge_cache, use_gauge
from gaugefix.callbacks.example_inputs import ROWS, ExampleInputs
from gaugefix.errors import DiscoveryError, SettingError
from tests.callbacks.small_fits import (
    INPUTS,
    Announced,
    Fitted,
    Forwarding,
    Outputs,
    change,
    data,
    mlp,
    trainer,
    unbalance_,
)


def fitted(model, steps=4, batch_size=5, **settings):
    projection = GaugeProjection(every_n_steps=2, **settings)
    before, after = Outputs(), Outputs()
    trainer(before, projection, after, max_steps=steps).fit(model, data(batch_size=batch_size))
    assert change(before, after) <= 2.9e-6
    assert projection.rolled_back == 0
    return projection


def parameters(projection):
    return {name for s in projection.gauge.applied for name in s.parameters}


@pytest.mark.parametrize(
    ("kind", "first", "name"),
    [(Announced, 0, "net.0.weight"), (Forwarding, 1, "net.0.weight"), (Fitted, 1, "0.weight")],
    ids=["example_input_array", "first call of forward", "first call of the only child"],
)
def test_the_network_is_found(kind, first, name):
    projection = fitted(kind(unbalance_(mlp())))
    assert name in parameters(projection)
    assert [entry["step"] for entry in projection.history] == [first, 2, 4]


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.last = nn.Linear(INPUTS, 8), nn.Linear(INPUTS, 8), nn.Linear(8, 3)

    def forward(self, x, other=None, flag=True):
        return self.last((self.left(x) + self.right(x if other is None else other)).relu())


@pytest.mark.parametrize(
    "array",
    [
        (torch.randn(4, INPUTS), torch.randn(4, INPUTS)),
        {"x": torch.randn(4, INPUTS), "other": torch.randn(4, INPUTS)},
        torch.randn(4, INPUTS),
    ],
    ids=["tuple", "dict", "tensor"],
)
def test_example_inputs_may_have_any_form(array):
    class Model(Announced):
        def forward(self, x, other=None):
            return self.net(x, other=other)

    model = Model(TwoInputs())
    model.example_input_array = array
    projection = GaugeProjection(every_n_steps=2)
    trainer(projection, max_steps=2).fit(model, data())
    assert projection.projections == 2
    assert parameters(projection) == {
        "net.left.weight",
        "net.left.bias",
        "net.right.weight",
        "net.right.bias",
        "net.last.weight",
    }


def test_keyword_arguments_of_the_first_call_are_kept():
    class Model(Fitted):
        def predict(self, x):
            return self.net(x, other=2 * x, flag=False)

    projection = GaugeProjection(every_n_steps=2)
    trainer(projection, max_steps=4).fit(Model(TwoInputs()), data(batch_size=12))
    inputs = projection._source.found.inputs
    assert set(inputs.kwargs) == {"other", "flag"}
    assert inputs.args[0].shape == (ROWS, INPUTS)
    assert torch.equal(inputs.kwargs["other"], 2 * inputs.args[0])
    assert projection.projections == 3


def test_a_first_axis_that_is_no_batch_axis_is_not_cut():
    whole = torch.randn(12, 5)
    module = nn.Bilinear(5, 5, 2)
    assert ExampleInputs((whole, whole), {}).fitted(module).args[0].shape == (ROWS, 5)

    class Fixed(nn.Linear):
        def forward(self, x):
            return super().forward(x.reshape(4, 15).sum() + x)

    assert ExampleInputs((whole,), {}).fitted(Fixed(5, 2)).args[0].shape == (12, 5)


class Nested(Announced):
    def __init__(self, **settings):
        super().__init__(
            nn.ModuleDict({"encoder": nn.ModuleDict({"backbone": mlp()}), "head": nn.Linear(3, 3)}), **settings
        )

    def forward(self, x):
        return self.net["head"](self.net["encoder"]["backbone"](x))


@pytest.mark.parametrize("announced", [True, False])
def test_a_named_submodule_is_analysed(announced):
    model = Nested()
    if not announced:
        model.example_input_array = None
    projection = GaugeProjection(every_n_steps=2, module="net.encoder.backbone")
    trainer(projection, max_steps=4).fit(model, data())
    assert parameters(projection) == {f"{k}.{kind}" for k in (0, 2) for kind in ("weight", "bias")} | {"4.weight"}
    assert [entry["step"] for entry in projection.history] == [0 if announced else 1, 2, 4]
    assert projection.rolled_back == 0


def test_a_misspelt_submodule_is_answered_with_the_nearest_one():
    message = (
        r"Expected the name of a submodule of Nested for module, got 'net\.encodr'\. Did you mean 'net\.encoder'\?"
    )
    with pytest.raises(SettingError, match=message):
        trainer(GaugeProjection(module="net.encodr"), max_steps=1).fit(Nested(), data())


def test_several_networks_need_a_choice():
    class Two(Fitted):
        def __init__(self):
            super().__init__(mlp())
            self.other = nn.Linear(INPUTS, 3)

        def predict(self, x):
            return self.net(x) + self.other(x)

    message = r"Expected one network in the training step of Two, got calls of .*module='net' or module='other'"
    with pytest.raises(SettingError, match=message):
        trainer(GaugeProjection(), max_steps=1).fit(Two(), data())
    projection = GaugeProjection(module="net")
    trainer(projection, max_steps=1).fit(Two(), data())
    assert projection.projections == 1


def test_a_network_that_is_never_called_is_an_error():
    class Direct(Fitted):
        def predict(self, x):
            return nn.functional.linear(x, self.net[0].weight)[:, :3]

    message = r"got no call of the LightningModule or its children\. Say which to analyse with module='net'"
    with pytest.raises(SettingError, match=message):
        trainer(GaugeProjection(), max_steps=1).fit(Direct(mlp()), data())
    with pytest.raises(SettingError, match=r"Expected a call of 'net\.4' in the training step of Direct, got none"):
        trainer(GaugeProjection(module="net.4"), max_steps=1).fit(Direct(mlp()), data())


def test_an_error_leaves_no_hook_behind():
    class Direct(Fitted):
        def predict(self, x):
            return nn.functional.linear(x, self.net[0].weight)[:, :3]

    model = Direct(mlp())
    with pytest.raises(SettingError):
        trainer(GaugeProjection(), OrbitDrift(), max_steps=1).fit(model, data())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_discovery_happens_once_for_all_callbacks(monkeypatch):
    calls = []
    discover = gauge_cache.discover
    monkeypatch.setattr(gauge_cache, "discover", lambda *args: calls.append(args) or discover(*args))
    for kind in (Announced, Fitted):
        calls.clear()
        model = kind(mlp())
        first, second = GaugeProjection(every_n_steps=2), OrbitDrift(every_n_steps=2)
        trainer(first, second, max_steps=2).fit(model, data())
        trainer(first, second, max_steps=2).fit(model, data())
        assert len(calls) == 1
        assert first.gauge is second.gauge
    model.net[0].bias.requires_grad_(False)
    trainer(first, max_steps=2).fit(model, data())
    assert len(calls) == 2  # a frozen parameter must not move: look again
    assert "0.bias" not in parameters(first)


def test_a_model_that_cannot_be_traced_says_what_to_do():
    class Branching(nn.Sequential):
        def forward(self, x):
            return super().forward(x) if float(x.sum()) > -1e9 else x

    with pytest.raises(
        DiscoveryError, match=r"trace for Announced, got .*module='encoder'.*gaugefix\.declare.*use_gauge"
    ):
        trainer(GaugeProjection(), max_steps=1).fit(Announced(Branching(*mlp())), data())
    # What is stated by hand needs no tracing.
    model = Announced(Branching(*mlp()))
    stated = gaugefix.discover(mlp(), (torch.randn(2, INPUTS),))
    use_gauge(model.net, stated)
    projection = GaugeProjection(module="net", every_n_steps=1)
    trainer(projection, max_steps=2).fit(model, data())
    assert projection.projections == 3
    assert projection.rolled_back == 0


def test_a_gauge_given_by_hand_is_used_as_it_is():
    model = Announced(mlp())
    part = gaugefix.discover(model, (model.example_input_array,)).select(lambda s: s.name == "net.0:scale")
    use_gauge(model, part)
    projection, drift = GaugeProjection(every_n_steps=1), OrbitDrift(every_n_steps=1)
    trainer(projection, drift, max_steps=2).fit(model, data())
    assert projection.gauge is drift.gauge is part
    assert set(drift.last.per_symmetry) == {"net.0:scale"}


def compiled_submodule(model):
    model.net = torch.compile(model.net, backend="eager")
    return model


def compiled_in_place(model):
    model.net.compile(backend="eager")
    return model


def compiled_whole(model):
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize("compiled", [compiled_submodule, compiled_in_place, compiled_whole])
@pytest.mark.parametrize("kind", [Announced, Forwarding, Fitted])
@pytest.mark.parametrize("module", [None, "net"])
def test_compiled_modules_are_seen_through(compiled, kind, module):
    torch._dynamo.reset()
    model = kind(unbalance_(mlp()))
    projection, drift = GaugeProjection(every_n_steps=2, module=module), OrbitDrift(every_n_steps=2, module=module)
    before, after = Outputs(), Outputs()
    counter = torch._dynamo.utils.counters
    counter.clear()
    trainer(before, projection, drift, after, max_steps=6).fit(compiled(model), data())
    assert change(before, after) <= 2.9e-6
    assert projection.rolled_back == 0
    assert projection.projections == 4
    assert not any("_orig_mod" in name for name in parameters(projection))
    assert max(entry["drift_after"] for entry in projection.history) <= 1e-3
    assert counter["stats"]["unique_graphs"] <= 1  # neither hooks nor probes were compiled
    assert torch._dynamo.eval_frame._stance.stance == "default"
