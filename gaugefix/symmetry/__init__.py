"""Symmetries as frozen data about names, and their action on named tensors."""

from gaugefix.symmetry.absorb_along import AbsorbAlong
from gaugefix.symmetry.base import GRADIENT, PARAMETER, RATIO, SQUARED_GRADIENT, Part, Symmetry
from gaugefix.symmetry.element import Element
from gaugefix.symmetry.exactness import Exactness
from gaugefix.symmetry.gauge_group import Frozen, GaugeGroup, named_tensors
from gaugefix.symmetry.kernels import ReaderKernel, WriterKernel
from gaugefix.symmetry.leg import Leg
from gaugefix.symmetry.linear import LinearSymmetry
from gaugefix.symmetry.rotation import Gain, ResidualRotation
from gaugefix.symmetry.shift import ShiftSymmetry
from gaugefix.symmetry.shift_steps import Absorb, Add, ChannelMap, Derive, Form, Solve

__all__ = [
    "GRADIENT",
    "PARAMETER",
    "RATIO",
    "SQUARED_GRADIENT",
    "Absorb",
    "AbsorbAlong",
    "Add",
    "ChannelMap",
    "Derive",
    "Element",
    "Exactness",
    "Form",
    "Frozen",
    "Gain",
    "GaugeGroup",
    "Leg",
    "LinearSymmetry",
    "Part",
    "ReaderKernel",
    "ResidualRotation",
    "ShiftSymmetry",
    "Solve",
    "Symmetry",
    "WriterKernel",
    "named_tensors",
]
