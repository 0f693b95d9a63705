"""Gauge slices: where on its orbit a parameter point should lie."""

from gaugefix.slices.base import Slice, get_slice, register_slice, slice_names
from gaugefix.slices.dyadic import diagonal_part, dyadic
from gaugefix.slices.flat import Flat
from gaugefix.slices.gradient_moments import GradientMoments
from gaugefix.slices.minimal_norm import MinimalNorm
from gaugefix.slices.on_shards import agreed, as_read_by, tensors_for, tensors_of
from gaugefix.slices.reference import Reference
from gaugefix.slices.spectral import Spectral
from gaugefix.slices.unit_norm import UnitNorm

__all__ = [
    "Flat",
    "GradientMoments",
    "MinimalNorm",
    "Reference",
    "Slice",
    "Spectral",
    "UnitNorm",
    "agreed",
    "as_read_by",
    "diagonal_part",
    "dyadic",
    "get_slice",
    "register_slice",
    "slice_names",
    "tensors_for",
    "tensors_of",
]
