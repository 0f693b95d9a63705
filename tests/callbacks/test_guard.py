"""What the guard of a projection sees beyond outputs (the range of float16), what it costs, and what is counted."""

import copy
import math

import pytest
import torch
from torch import nn

import gaugefix
from gaugefix import GaugeProjection
from gaugefix.callbacks.example_inputs import ROWS, ExampleInputs
from gaugefix.callbacks.gauge_source import Analysed
from gaugefix.callbacks.guard import guarded_act_
from gaugefix.symmetry import Element
from gaugefix.testing import tolerance
from tests.callbacks.small_fits import (
    CLASSES,
    INPUTS,
    Announced,
    Outputs,
    change,
    data,
    mlp,
    same,
    state_of,
    trainer,
    unbalance_,
    use_false_gauge,
    warned,
)
from tests.callbacks.test_gauge_projection import Checked, Spoiled
from tests.callbacks.test_orbit_drift import Memory

BEYOND = "Expected values within the range of float16, 6e-8 to 65504, for the projection at step 2, got some beyond it."


class Moments(Announced):
    """Adam's second moments of the first layer are 1, by decree."""

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.optimizers().state[self.net[0].weight]["exp_avg_sq"].fill_(1.0)


def test_a_state_that_would_overflow_in_float16_is_left_where_it_is():
    """Unit norm makes them a million times larger, and no output depends on them."""
    net = mlp()
    with torch.no_grad():
        net[0].weight.mul_(1000.0)
    projection = Checked("unit_norm", every_n_steps=2, at_start=False)
    with warned() as messages:
        trainer(projection, max_steps=2, precision="16-true").fit(Moments(net, eps=1e-3, lr=0.0), data())
    assert (projection.projections, projection.rolled_back) == (0, 1)
    assert projection.untouched
    (message,) = messages
    assert message.startswith(f"{BEYOND} It was taken back. Train with precision='bf16-true' or '16-mixed'")


def words(dtype: torch.dtype, row: float) -> tuple[nn.Module, gaugefix.GaugeGroup, ExampleInputs]:
    """An embedding of units that may be scaled, and a last word that nobody reads."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(20, 4), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        net[0].weight[-1] = row
    read = (torch.arange(12).view(3, 4),)
    return net.to(dtype), gaugefix.discover(net, read), ExampleInputs(read, {})


@pytest.mark.parametrize(
    ("dtype", "row", "factor", "kept"),
    [
        (torch.float16, 60000.0, 2.0, False),  # to infinity
        (torch.float16, 30000.0, 2.0, True),
        (torch.float16, 1e-7, 0.25, False),  # to a word of zeros
        (torch.float16, 6e-5, 0.25, True),
        (torch.float16, 0.0, 0.25, True),
        (torch.float16, math.inf, 2.0, True),  # it was so before
        (torch.bfloat16, 60000.0, 2.0, True),
        (torch.bfloat16, 1e-7, 0.25, True),
    ],
)
def test_entries_that_no_output_shows_stay_within_the_range_of_their_type(dtype, row, factor, kept):
    net, gauge, inputs = words(dtype, row)
    before = state_of(net)
    element = Element((("0:scale", torch.full((4,), factor, dtype=torch.float64)),))
    found, error = guarded_act_(Analysed("", net, gauge, inputs), element, [], [], "error", bool)
    assert (found, error == 0.0) == (kept, kept)
    assert same(state_of(net), before) != kept


def test_so_does_an_averaged_copy():
    net, gauge, inputs = words(torch.float16, 1.0)
    average = copy.deepcopy(net)
    with torch.no_grad():
        average[0].weight[0] = 60000.0
    before = state_of(average)
    element = Element((("0:scale", torch.full((4,), 2.0, dtype=torch.float64)),))
    assert guarded_act_(Analysed("", net, gauge, inputs), element, [], [average], "error", bool) == (False, math.inf)
    assert same(state_of(average), before)


@pytest.mark.parametrize("dyadic", [False, True])
@pytest.mark.parametrize("slice", ["minimal_norm", "spectral", "unit_norm", "flat"])
def test_dead_units_stop_no_projection(slice, dyadic):
    """Nothing goes in, nothing comes out, or neither; and a unit whose bias keeps it silent on every input."""
    model = Announced(unbalance_(mlp()), lr=1e-3)
    with torch.no_grad():
        model.net[0].weight[[0, 2]] = model.net[0].bias[[0, 2]] = 0.0
        model.net[2].weight[:, [1, 2]] = 0.0
        model.net[0].bias[3] = -1e4
    before, after = Outputs(), Outputs()
    projection = GaugeProjection(slice, every_n_steps=2, dyadic=dyadic)
    trainer(before, projection, after, max_steps=6).fit(model, data())
    assert (projection.projections, projection.skipped, projection.rolled_back) == (4, 0, 0)
    assert change(before, after) <= (0.0 if dyadic else tolerance(torch.float32))
    assert all(bool(p.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("slice", ["minimal_norm", "spectral"])
def test_float16_parameters(slice):
    model, projection = Announced(unbalance_(mlp()), "SGD", momentum=0.9), GaugeProjection(slice, every_n_steps=2)
    before, after = Outputs(torch.float16), Outputs(torch.float16)
    trainer(before, projection, after, max_steps=6, precision="16-true").fit(model, data())
    assert (projection.projections, projection.rolled_back) == (4, 0)
    assert change(before, after) <= tolerance(torch.float16)
    assert gaugefix.drift(model, projection.gauge, slice).total <= 0.05  # half precision


def test_powers_of_two_round_where_float16_becomes_coarse():
    """Below 6e-5 numbers lose bits: outputs change, by less than the guard allows, and the history says so."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(INPUTS, 8, bias=False), nn.ReLU(), nn.Linear(8, CLASSES, bias=False))
    with torch.no_grad():
        net[0].weight.mul_(2.0**-10)
        net[2].weight.mul_(2.0**-4)
    for dtype, exact in ((torch.float16, False), (torch.float32, True)):
        model = Announced(copy.deepcopy(net).to(dtype), "SGD", lr=0.0)
        projection = GaugeProjection("unit_norm", every_n_steps=1, dyadic=True)
        trainer(projection, max_steps=1).fit(model, data(dtype=dtype))
        assert projection.projections == 2
        assert (projection.invariance_error == 0.0) == exact


def counters(memory, prefix="gauge"):
    """(step, projections, skipped, rolled back) of every row that has them."""
    keys = [f"{prefix}/{kind}" for kind in ("projections", "skipped", "rolled_back")]
    return [(step, *(row[key] for key in keys)) for step, row in memory.rows if keys[0] in row]


def test_counters_are_logged_when_they_change():
    memory = Memory()
    t = trainer(GaugeProjection(every_n_steps=2, name="a"), max_steps=5, logger=memory)
    t.fit(Announced(mlp()), data())
    assert counters(memory, "gauge/a") == [(0, 1, 0, 0), (2, 2, 0, 0), (4, 3, 0, 0)]
    assert float(t.callback_metrics["gauge/a/projections"]) == 3
    assert not set(t.progress_bar_metrics)


def test_projections_that_were_skipped_are_in_the_logs():
    memory = Memory()
    with warned():
        trainer(GaugeProjection(every_n_steps=1), max_steps=4, logger=memory).fit(Spoiled(mlp()), data())
    assert counters(memory) == [(0, 1, 0, 0), (1, 2, 0, 0), (2, 3, 0, 0), (3, 3, 1, 0), (4, 3, 2, 0)]


def test_projections_that_were_taken_back_are_in_the_logs():
    memory, model = Memory(), Announced(mlp())
    use_false_gauge(model)
    with warned():
        trainer(GaugeProjection(every_n_steps=1), max_steps=6, logger=memory).fit(model, data())
    assert counters(memory) == [(0, 0, 0, 1), (1, 0, 0, 2), (2, 0, 0, 3)]  # then it is off


def test_the_probe_reads_few_rows_of_a_large_batch_twice_a_projection():
    rows: list[int] = []
    model = Announced(mlp())
    model.example_input_array = torch.randn(4096, INPUTS)
    projection = GaugeProjection(every_n_steps=2)
    trainer(projection, max_steps=4).fit(model, data())
    assert projection._source.found.inputs.args[0].shape == (ROWS, INPUTS)
    made = projection.projections
    model.net[0].register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    trainer(projection, max_steps=4).fit(model, data(batch_size=16))
    assert projection.projections == made + 2
    assert rows.count(ROWS) == 1 + 2 * 2  # once to see whether it takes so few
