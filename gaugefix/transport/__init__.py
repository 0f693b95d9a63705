"""Transport: whatever is attached to a parameter moves with it."""

from gaugefix.symmetry import GRADIENT, RATIO, SQUARED_GRADIENT
from gaugefix.transport.act import act_, move_
from gaugefix.transport.attachments import Attached, Attachments, attached
from gaugefix.transport.laws import INVARIANT, LAWS, Policy, register_optimizer

__all__ = [
    "GRADIENT",
    "INVARIANT",
    "LAWS",
    "RATIO",
    "SQUARED_GRADIENT",
    "Attached",
    "Attachments",
    "Policy",
    "act_",
    "attached",
    "move_",
    "register_optimizer",
]
