"""Fix the gauge of a network while it trains.

Many parameters give the same function. gaugefix finds those symmetries, proves them, and moves parameters along them.
"""

from gaugefix.declare import declare
from gaugefix.discovery import discover
from gaugefix.functional import drift
from gaugefix.projection import project_
from gaugefix.symmetry import Element, GaugeGroup
from gaugefix.transport import act_
from gaugefix.verification import verify

__version__ = "0.1.0"

__all__ = [
    "Element",
    "GaugeGroup",
    "act_",
    "declare",
    "discover",
    "drift",
    "project_",
    "verify",
]
