"""Hooks that do nothing are not called in every batch, and nothing that somebody overrides is lost."""

import pytest

from gaugefix import GaugeProjection, GaugeRegularizer, OrbitDrift
from tests.callbacks.small_fits import Announced, Fitted, data, mlp, trainer

EVERY_BATCH = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")


@pytest.mark.parametrize("kind", [GaugeProjection, OrbitDrift])
def test_lightning_finds_nothing_to_call(kind):
    callback = kind(every_n_steps=2)
    trainer(callback, max_steps=3).fit(Announced(mlp()), data(3))
    assert all(getattr(callback, name) is None for name in EVERY_BATCH)
    assert callback.on_train_batch_start is None  # everything is known from the example input
    assert callable(callback.on_train_batch_end)
    assert callback.steps == 3


def test_what_has_something_to_do_is_called():
    flat, term = GaugeProjection("flat", every_n_steps=2), GaugeRegularizer("charge")
    trainer(flat, term, max_steps=3).fit(Announced(mlp()), data(3))
    assert callable(flat.on_before_optimizer_step)
    assert callable(term.on_before_optimizer_step)


def test_a_first_batch_is_listened_to_in_every_fit():
    projection = GaugeProjection(every_n_steps=2)
    for k in range(2):
        trainer(projection, max_steps=3).fit(Fitted(mlp(k)), data(3))
        assert projection.gauge is not None
    assert projection.history[0]["step"] == 1  # when the first batch had shown the input


def test_a_subclass_and_a_function_put_on_an_instance_are_called():
    class Counting(GaugeProjection):
        seen = 0

        def on_after_backward(self, trainer, pl_module):
            super().on_after_backward(trainer, pl_module)  # of a hook that would be silent
            self.seen += 1

    counting, other, calls = Counting(every_n_steps=2), OrbitDrift(every_n_steps=2), []
    other.on_before_backward = lambda *_: calls.append(1)
    trainer(counting, other, max_steps=3).fit(Announced(mlp()), data(3))
    assert counting.seen == len(calls) == 3
