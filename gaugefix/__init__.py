"""Fix the gauge of a network while it trains.

Many parameters give the same function. gaugefix finds those symmetries, proves them, and moves parameters along them.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gaugefix.callbacks import GaugeProjection, GaugeRegularizer, NoetherCharges, OrbitDrift, VerticalFraction
    from gaugefix.comparison import canonicalize
    from gaugefix.declaration import declare
    from gaugefix.discovery import discover
    from gaugefix.functional import distance, drift
    from gaugefix.projection import project_
    from gaugefix.symmetry import Element, GaugeGroup
    from gaugefix.transport import act_
    from gaugefix.verification import verify

__version__ = "0.1.0"

__all__ = [
    "Element",
    "GaugeGroup",
    "GaugeProjection",
    "GaugeRegularizer",
    "NoetherCharges",
    "OrbitDrift",
    "VerticalFraction",
    "act_",
    "canonicalize",
    "declare",
    "discover",
    "distance",
    "drift",
    "project_",
    "verify",
]

# Everything is imported when it is first asked for: the command line answers without torch, and only those who use
# the callbacks wait for Lightning. No file may share its name with a function here, or importing it would hide that.
_ROOM_OF = {
    "Element": "symmetry",
    "GaugeGroup": "symmetry",
    "GaugeProjection": "callbacks",
    "GaugeRegularizer": "callbacks",
    "NoetherCharges": "callbacks",
    "OrbitDrift": "callbacks",
    "VerticalFraction": "callbacks",
    "act_": "transport",
    "canonicalize": "comparison",
    "declare": "declaration",
    "discover": "discovery",
    "distance": "functional",
    "drift": "functional",
    "project_": "projection",
    "verify": "verification",
}
_ROOMS = (
    "callbacks",
    "discovery",
    "errors",
    "functional",
    "groups",
    "metrics",
    "ode",
    "regularizers",
    "slices",
    "symmetry",
    "testing",
)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"gaugefix.{name}")
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = importlib.import_module(f"gaugefix.{_ROOM_OF[name]}")
    if _ROOM_OF[name] == "callbacks":
        room.adopt()  # a Lightning package may have been imported since the last time
    return getattr(room, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOM_OF, *_ROOMS})
