"""By default projections are made as often as the drift asks for."""

import math

import pytest
import torch

from gaugefix import GaugeProjection
from gaugefix.callbacks.interval import Interval
from tests.callbacks.small_fits import Announced, data, mlp, trainer


def steps(projection):
    return [entry["step"] for entry in projection.history]


def test_it_doubles_while_little_moves_and_halves_when_much_does():
    interval = Interval(100)
    at, seen = 100, []
    for drift in (0.05, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.05, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2):
        assert interval.is_due(at)
        assert not interval.is_due(at - 100)
        interval.note(at, drift)
        seen.append(interval.steps)
        at += interval.steps
    assert seen == [100, 200, 400, 800, 1600, 1600, 1600, 1600, 800, 400, 200, 100, 100, 100]


def test_a_projection_that_was_not_made_says_nothing_about_the_next():
    interval = Interval(100)
    interval.note(100, 0.01)
    interval.note(300, math.nan)
    assert (interval.steps, interval.next) == (100, 400)


def test_a_quiet_run_is_projected_less_and_less():
    projection = GaugeProjection()
    trainer(projection, max_steps=720).fit(Announced(mlp(), lr=1e-5), data(50))
    assert steps(projection) == [0, 100, 300, 700]


def test_a_run_that_drifts_is_projected_every_hundred_steps():
    class Restless(GaugeProjection):
        """Away from the slice between any two projections."""

        def act(self, trainer, pl_module, analysed):
            with torch.no_grad():
                next(pl_module.parameters()).mul_(1.5)
            super().act(trainer, pl_module, analysed)

    projection = Restless()
    trainer(projection, max_steps=410).fit(Announced(mlp(), lr=1e-5), data(50))
    assert steps(projection) == [0, 100, 200, 300, 400]


@pytest.mark.parametrize(("slice", "every", "expected"), [("minimal_norm", 100, 100), ("flat", None, 20)])
def test_an_interval_that_is_given_stays_and_so_does_that_of_flat(slice, every, expected):
    projection = GaugeProjection(slice, every_n_steps=every, at_start=False)
    trainer(projection, max_steps=3 * expected).fit(Announced(mlp(), lr=1e-5), data(50))
    assert steps(projection) == [expected, 2 * expected, 3 * expected]


def test_a_resumed_run_keeps_its_interval(tmp_path):
    def fit(steps, checkpoint=None):
        projection = GaugeProjection()
        t = trainer(projection, max_steps=steps)
        # One batch, so that it does not matter where a loader starts.
        t.fit(Announced(mlp(), lr=1e-5), data(batches=1), ckpt_path=checkpoint)
        t.save_checkpoint(tmp_path / f"{steps}.ckpt")
        return projection

    first = fit(350)
    second, whole = fit(750, tmp_path / "350.ckpt"), fit(751)
    assert steps(first) == [0, 100, 300]
    assert steps(second) == [0, 100, 300, 700]
    assert second.history == whole.history
