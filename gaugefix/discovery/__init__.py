"""Discovery: capture a model, run it on labels, read its gauge group off."""

from gaugefix.discovery.blockers import StateBlockers, state_blockers
from gaugefix.discovery.discover import discover
from gaugefix.discovery.labels import DIAGONAL, LINEAR, NOTHING, ODD, PERMUTE, POSITIVE
from gaugefix.discovery.rules import Elementwise, register, rules

__all__ = [
    "DIAGONAL",
    "LINEAR",
    "NOTHING",
    "ODD",
    "PERMUTE",
    "POSITIVE",
    "Elementwise",
    "StateBlockers",
    "discover",
    "register",
    "rules",
    "state_blockers",
]
