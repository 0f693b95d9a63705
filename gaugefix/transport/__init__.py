"""Transport: whatever is attached to a parameter moves with it."""

from gaugefix.symmetry import GRADIENT, SQUARED_GRADIENT
from gaugefix.transport.act import act_
from gaugefix.transport.laws import INVARIANT, LAWS, Policy, attached, register_optimizer

__all__ = ["GRADIENT", "INVARIANT", "LAWS", "SQUARED_GRADIENT", "Policy", "act_", "attached", "register_optimizer"]
