"""The torchmetrics shells say what the functions say."""

import copy
import math
import pickle
from itertools import pairwise

import pytest
import torch
from torch import nn
from torchmetrics import MetricCollection

import gaugefix
from gaugefix.errors import SliceError
from gaugefix.functional import charge_norm, drift, noether_charge, slice_residual, step_drift, vertical_fraction
from gaugefix.metrics import NoetherCharge, OrbitDriftMetric, SliceResidual, StepDrift, VerticalFractionMetric

ALL = [OrbitDriftMetric, SliceResidual, NoetherCharge, StepDrift, VerticalFractionMetric]


@pytest.fixture(scope="module")
def models():
    """A gauge group and three points on its orbits."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2))
    gauge = gaugefix.discover(net, (torch.randn(3, 5),))
    points = [copy.deepcopy(net) for _ in range(3)]
    for k, point in enumerate(points):
        gaugefix.act_(point, gauge, gauge.random(seed=k))
    return gauge, points


def path(gauge, points):
    steps = [step_drift(a.state_dict(), b, gauge) for a, b in pairwise(points)]
    return [math.sqrt(sum(value**2 for value in step.values())) for step in steps]


def vertical_path(gauge, points):
    fractions = []
    for a, b in pairwise(points):
        moved = {n: q - p for (n, p), q in zip(a.named_parameters(), b.parameters(), strict=True)}
        fractions.append(vertical_fraction(a, gauge, moved))
    assert all(0.5 < fraction < 1.0 for fraction in fractions)  # along the orbit, which is curved
    return fractions


EXPECTED = {
    OrbitDriftMetric: lambda gauge, points: [drift(p, gauge).total for p in points],
    SliceResidual: lambda gauge, points: [slice_residual(p, gauge) for p in points],
    NoetherCharge: lambda gauge, points: [charge_norm(noether_charge(p, gauge)) for p in points],
    StepDrift: path,
    VerticalFractionMetric: vertical_path,
}


def test_every_metric_has_a_case():
    assert set(EXPECTED) == set(ALL) == {getattr(gaugefix.metrics, name) for name in gaugefix.metrics.__all__}


@pytest.mark.parametrize("metric", ALL)
def test_mean_over_updates(models, metric):
    gauge, points = models
    values = EXPECTED[metric](gauge, points)
    measured = metric(gauge)
    for point in points:
        measured.update(point)
    assert float(measured.compute()) == pytest.approx(sum(values) / len(values), rel=1e-5)
    assert measured.compute().dtype == torch.float64


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric .* was called before the ``update``:UserWarning")
def test_reset_starts_anew(models, metric):
    gauge, points = models
    measured = metric(gauge)
    for point in points:
        measured.update(point)
    measured.reset()
    assert measured.compute().isnan()
    measured.update(points[1])
    measured.update(points[2])
    values = EXPECTED[metric](gauge, points[1:])
    assert float(measured.compute()) == pytest.approx(sum(values) / len(values), rel=1e-5)


def test_in_a_collection_they_measure_one_model(models):
    gauge, points = models
    together = MetricCollection({kind.__name__: kind(gauge) for kind in ALL})
    for point in points:
        together.update(point)
    for kind in ALL:
        values = EXPECTED[kind](gauge, points)
        assert float(together.compute()[kind.__name__]) == pytest.approx(sum(values) / len(values), rel=1e-5)


@pytest.mark.parametrize("metric", ALL)
def test_copies_and_pickles(models, metric):
    gauge, points = models
    measured = metric(gauge)
    measured.update(points[0])
    measured.update(points[1])
    for other in (copy.deepcopy(measured), pickle.loads(pickle.dumps(measured))):
        assert torch.equal(other.compute(), measured.compute())
        other.update(points[2])
        assert not torch.equal(other.compute(), measured.compute())


def test_misspelt_slice(models):
    with pytest.raises(SliceError, match="Did you mean 'unit_norm'"):
        SliceResidual(models[0], "unit_nrom")
