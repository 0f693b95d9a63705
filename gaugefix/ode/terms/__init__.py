"""Regularizers of neural ODEs, read as gauge conditions on fields: one function each, to be added to a loss."""

from gaugefix.ode.terms.depth_smoothness import depth_smoothness
from gaugefix.ode.terms.jacobian_frobenius import jacobian_frobenius
from gaugefix.ode.terms.kinetic import kinetic
from gaugefix.ode.terms.speed_variance import speed_variance

__all__ = ["depth_smoothness", "jacobian_frobenius", "kinetic", "speed_variance"]
