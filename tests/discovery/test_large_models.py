"""Models in the sizes that are in use, on the meta device: the whole group, without a copy of the parameters."""

from __future__ import annotations

import pytest

from gaugefix import discover
from gaugefix.groups import GeneralLinear, SignedScaling
from gaugefix.symmetry import GaugeGroup, LinearSymmetry, ReaderKernel, ShiftSymmetry, WriterKernel
from tests.discovery.transformers_large import GPT2_SIZES, LLAMA_1B, gpt2, llama

ATTENTION = {"124M": 1_179_648, "355M": 3_145_728, "774M": 5_898_240, "1.5B": 9_830_400}
SIZES = [pytest.param(size, marks=[pytest.mark.slow] if size != "124M" else []) for size in GPT2_SIZES]


def linear(gauge: GaugeGroup, group: type) -> int:
    return sum(s.dimension for s in gauge.applied if isinstance(s, LinearSymmetry) and type(s.group) is group)


def of_kind(gauge: GaugeGroup, kind: type) -> int:
    return sum(s.dimension for s in gauge.applied if isinstance(s, kind))


@pytest.mark.parametrize("size", SIZES)
def test_gpt2(size):
    layers, width, n = GPT2_SIZES[size]
    model, args = gpt2(size)
    gauge = discover(model, args)
    assert linear(gauge, GeneralLinear) == 2 * layers * width**2 // n == ATTENTION[size]
    assert linear(gauge, SignedScaling) == layers * 2 * width  # the last gain is not free: its reader is the embedding
    # Shifts of norms, keys and values; and the positions and all biases of the stream, along the ones.
    assert of_kind(gauge, ShiftSymmetry) == layers * 4 * width + 1 + 2 * layers
    assert of_kind(gauge, WriterKernel) == 1024 - 1 + layers * 5 * width  # all positions may move alike: a shift
    assert of_kind(gauge, ReaderKernel) == layers * 7 * width
    assert not gauge.frozen
    assert not gauge.unknown_ops
    assert all(p.is_meta for p in model.parameters())


def test_llama():
    model, args = llama()
    gauge = discover(model, args)
    layers, width, inner, groups = (LLAMA_1B[key] for key in ("layers", "width", "inner", "groups"))
    size = width // LLAMA_1B["n"]
    assert linear(gauge, GeneralLinear) == layers * groups * size**2  # values; positions turn the keys
    assert gauge.dimension == layers * (groups * size**2 + groups * size + 2 * width + inner)
    assert not gauge.frozen
    assert not gauge.unknown_ops
    assert all(p.is_meta for p in model.parameters())
