"""The groups that networks let act on an axis, one a file."""

from gaugefix.groups.base import DiagonalGroup, Group, MatrixGroup
from gaugefix.groups.complex_scaling import ComplexScaling
from gaugefix.groups.general_linear import GeneralLinear
from gaugefix.groups.orthogonal import Orthogonal
from gaugefix.groups.permutations import Permutations
from gaugefix.groups.positive_scaling import PositiveScaling
from gaugefix.groups.signed_scaling import SignedScaling
from gaugefix.groups.signs import Signs
from gaugefix.groups.translations import Translations

ALL_GROUPS: tuple[type[Group], ...] = (
    PositiveScaling,
    SignedScaling,
    Signs,
    GeneralLinear,
    ComplexScaling,
    Orthogonal,
    Permutations,
    Translations,
)

__all__ = [
    "ALL_GROUPS",
    "ComplexScaling",
    "DiagonalGroup",
    "GeneralLinear",
    "Group",
    "MatrixGroup",
    "Orthogonal",
    "Permutations",
    "PositiveScaling",
    "SignedScaling",
    "Signs",
    "Translations",
]
