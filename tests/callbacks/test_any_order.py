"""All callbacks together, in any order."""

import itertools
import random

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint

import gaugefix
from gaugefix import GaugeProjection, GaugeRegularizer, OrbitDrift
from gaugefix.callbacks import NoetherCharges, VerticalFraction
from gaugefix.testing import relative_change
from tests.callbacks.small_fits import Announced, data, mlp, same, trainer, unbalance_, warned

ORDERS = [*random.Random(0).sample(list(itertools.permutations(range(8))), 5), tuple(range(8)), tuple(range(7, -1, -1))]


@pytest.mark.parametrize("slice", ["minimal_norm", "flat"])
def test_callbacks_work_in_any_order(tmp_path, slice):
    """Weights and projections are the same to the last bit; the drift is that before or after a projection."""
    found = {}
    for place, order in enumerate(ORDERS):
        projection, drift = GaugeProjection(slice, every_n_steps=3), OrbitDrift(every_n_steps=6)
        average, keep = EMAWeightAveraging(decay=0.5), ModelCheckpoint(tmp_path / str(place), every_n_train_steps=6)
        stop = EarlyStopping("gauge/drift", patience=9, check_on_train_epoch_end=True)
        others = (GaugeRegularizer("charge", 0.05), NoetherCharges(every_n_steps=6), VerticalFraction(every_n_steps=2))
        everything = (projection, drift, average, keep, stop, *others)
        with warned():
            t = trainer(*(everything[k] for k in order), max_epochs=1, enable_checkpointing=True)
            t.fit(Announced(unbalance_(mlp())), data(7))
        saved = torch.load(keep.best_model_path, weights_only=True)
        live = Announced(mlp())
        live.load_state_dict(saved["current_model_state"])
        if slice == "minimal_norm":  # what is saved is on the slice, wherever the checkpoint's callback stood
            assert gaugefix.drift(live, projection.gauge).total <= 1e-3
            behind = order.index(0) < order.index(1)
            expected = projection.history[2]["drift_after" if behind else "drift_before"]
            assert drift.last.total == pytest.approx(expected, rel=1e-3, abs=1e-6)
        # On the flat slice a regularizer in front of the projection belongs to the gradients that are observed.
        kind = slice == "flat" and order.index(5) < order.index(0)
        weights, history, averaged = (
            saved["current_model_state"],
            projection.history,
            list(saved["state_dict"].values()),
        )
        first = found.setdefault(kind, (weights, history, averaged))
        assert same(weights, first[0])
        assert history == first[1]
        assert relative_change(first[2], averaged) <= 1e-5  # averaged before or after both have moved
    assert len(found) == (2 if slice == "flat" else 1)
