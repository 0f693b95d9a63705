"""Gauge-fixing terms: regularizers whose minimum on an orbit is a gauge slice, and gauge-invariant controls.

Each class is its own method card: gauge condition, residual freedom, whether it changes the function, cost, source.
Terms on trajectories of neural ODEs are functions to be added to a loss; they come from :mod:`gaugefix.ode.terms`.
"""

from gaugefix.ode.terms import jacobian_frobenius, kinetic, speed_variance
from gaugefix.regularizers.balance import Balance
from gaugefix.regularizers.base import GaugeTerm, get_term, register_term, term_class, term_names
from gaugefix.regularizers.charge import Charge
from gaugefix.regularizers.depth_smoothness import DepthSmoothness
from gaugefix.regularizers.l2 import L2
from gaugefix.regularizers.nuclear_norm import NuclearNorm
from gaugefix.regularizers.orthogonality import Orthogonality
from gaugefix.regularizers.path_norm import PathNorm
from gaugefix.regularizers.product_of_norms import ProductOfNorms
from gaugefix.regularizers.reference import Reference
from gaugefix.regularizers.unit_norm import UnitNorm

__all__ = [
    "L2",
    "Balance",
    "Charge",
    "DepthSmoothness",
    "GaugeTerm",
    "NuclearNorm",
    "Orthogonality",
    "PathNorm",
    "ProductOfNorms",
    "Reference",
    "UnitNorm",
    "get_term",
    "jacobian_frobenius",
    "kinetic",
    "register_term",
    "speed_variance",
    "term_class",
    "term_names",
]
