"""The whole group: checks, elements, subgroups, inverses."""

import copy
import io

import numpy as np
import pytest
import torch
from torch import nn

from gaugefix import discover
from gaugefix.errors import SymmetryError
from gaugefix.groups import PositiveScaling
from gaugefix.symmetry import (
    Element,
    Exactness,
    GaugeGroup,
    Leg,
    LinearSymmetry,
    ReaderKernel,
    ShiftSymmetry,
    WriterKernel,
    named_tensors,
)
from tests.discovery.architectures import ARCHITECTURES, chain, rows


def scaling(name: str = "s", shape: tuple[int, ...] = (3,)) -> LinearSymmetry:
    index = np.arange(3).reshape(shape)
    return LinearSymmetry(name, Exactness.EXACT, acting=PositiveScaling(3), legs=(Leg("w", index, axis=-1),))


def seeded(name: str) -> tuple[nn.Module, GaugeGroup]:
    torch.manual_seed(0)
    model, args = ARCHITECTURES[name]()
    return model.double(), discover(model, tuple(a.double() if a.is_floating_point() else a for a in args))


def apply(gauge: GaugeGroup, tensors: dict[str, torch.Tensor], element: Element) -> dict[str, torch.Tensor]:
    tensors = dict(tensors)
    for name, value in element.steps:
        tensors |= gauge[name].act(tensors, value)
    return tensors


class TestChecks:
    def test_names_differ(self):
        with pytest.raises(SymmetryError, match=r"Expected different names for symmetries, got 's' twice. Rename one"):
            GaugeGroup((scaling(), scaling()), {"w": (3,)})

    def test_shapes_are_complete(self):
        with pytest.raises(
            SymmetryError, match=r"Expected the shape of 'w' for symmetry 's', got none. Add it to shapes"
        ):
            GaugeGroup((scaling(),), {})

    @pytest.mark.parametrize("shape", [(4,), (3, 1), (2, 3)])
    def test_index_broadcasts(self, shape):
        with pytest.raises(SymmetryError, match=r"Expected an index that broadcasts to .* for the leg of 's' on 'w'"):
            GaugeGroup((scaling(),), {"w": shape})

    def test_index_that_fits(self):
        assert GaugeGroup((scaling(shape=(1, 3)),), {"w": (2, 3)}).dimension == 3


INVERTED = [
    "leaky relu",
    "linear bottleneck",
    "bias through bias-free maps",
    "cnn: norm, concatenation, depthwise",
    "layer norm: writer and reader kernels",
    "layer norm: from norm to norm",
    "rms norm without gain",
    "weight norm",
    "weight with an offset",
    "embedding",
    "residual stream of biases",
    "square",
    "tanh",
]


@pytest.mark.parametrize("name", INVERTED)
def test_inverse_undoes_a_random_element(name):
    """Linear parts, shifts and kernels do not commute: the inverse runs backwards."""
    model, gauge = seeded(name)
    tensors = {n: t.detach().clone() for n, t in named_tensors(model).items()}
    element = gauge.random(scale=0.3, seed=1, discrete=True)
    moved = apply(gauge, tensors, element)
    back = apply(gauge, moved, gauge.inverse(element))
    assert any(not torch.equal(moved[n], tensors[n]) for n in tensors)
    for n in tensors:
        torch.testing.assert_close(back[n], tensors[n], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["linear bottleneck", "layer norm: writer and reader kernels"])
def test_steps_follow_one_another(name):
    model, gauge = seeded(name)
    tensors = {n: t.detach().clone() for n, t in named_tensors(model).items()}
    one, two = gauge.random(seed=1), gauge.random(seed=2)
    expected = apply(gauge, apply(gauge, tensors, one), two)
    for n, value in apply(gauge, tensors, one.then(two)).items():
        torch.testing.assert_close(value, expected[n], rtol=0, atol=0)


def test_random_elements_are_reproducible_and_continuous_by_default():
    _, gauge = seeded("tanh")
    assert gauge.random(seed=3).steps == ()
    assert set(gauge.random(seed=3, discrete=True).values) == {s.name for s in gauge.symmetries}
    _, gauge = seeded("linear bottleneck")
    a, b, c = (gauge.random(seed=s) for s in (3, 3, 4))
    assert all(torch.equal(a.values[n], b.values[n]) for n in a.values)
    assert any(not torch.equal(a.values[n], c.values[n]) for n in a.values)
    assert {v.dtype for v in a.values.values()} == {torch.float64}


def test_classes_that_are_not_applied_are_left_out():
    gauge = discover(chain(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.GELU(), nn.Linear(5, 3)), rows(4))
    classes = {s.exactness for s in gauge.symmetries}
    assert Exactness.EPSILON in classes
    assert {s.exactness for s in gauge.applied} == {Exactness.EXACT}
    assert set(gauge.random(discrete=True).values) == {s.name for s in gauge.applied}
    assert gauge.dimension == sum(s.dimension for s in gauge.applied) < sum(s.dimension for s in gauge.symmetries)


def test_select_and_extend():
    _, gauge = seeded("linear bottleneck")
    linear = gauge.select(lambda s: isinstance(s, LinearSymmetry))
    assert len(linear) < len(gauge)
    assert linear.shapes == gauge.shapes
    extended = gauge.with_symmetries([scaling("extra")], {"w": (3,)})
    assert extended["extra"].dimension == 3
    assert extended.dimension == gauge.dimension + 3
    assert len(gauge) + 1 == len(extended)


def test_order_is_linear_then_shifts_then_kernels():
    _, gauge = seeded("layer norm: writer and reader kernels")
    rank = [0 if isinstance(s, LinearSymmetry) else 1 if isinstance(s, ShiftSymmetry) else 2 for s in gauge.symmetries]
    applied = [r for r, s in zip(rank, gauge.symmetries, strict=True) if s.exactness.applied]
    assert applied == sorted(applied)
    assert {type(s) for s in gauge.applied} == {LinearSymmetry, ShiftSymmetry, WriterKernel, ReaderKernel}


def test_group_fits_copies_and_other_types():
    model, gauge = seeded("cnn: norm, residual")
    assert set(gauge.check(copy.deepcopy(model).float())) == set(gauge.shapes)


def test_element_survives_a_checkpoint():
    _, gauge = seeded("linear bottleneck")
    element, file = gauge.random(seed=5, discrete=True), io.BytesIO()
    torch.save(element.state_dict(), file)
    file.seek(0)
    loaded = Element.from_state_dict(torch.load(file, weights_only=True))
    assert [n for n, _ in loaded.steps] == [n for n, _ in element.steps]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(loaded.steps, element.steps, strict=True))


def test_buffers_and_shared_names_are_listed():
    model = chain(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    names = named_tensors(model)
    assert names["2.weight"] is names["0.weight"]
    assert "1.running_mean" in names
