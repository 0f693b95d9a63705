"""Rules as data: importing this package fills the table."""

from gaugefix.discovery.rules import (
    arithmetic,
    attention,
    elementwise,
    flow,
    layers,
    linear_map,
    masks,
    movement,
    norms,
    rotary,
)
from gaugefix.discovery.rules.elementwise import Elementwise
from gaugefix.discovery.rules.registry import Row, Rule, find, register, rules

__all__ = [
    "Elementwise",
    "Row",
    "Rule",
    "arithmetic",
    "attention",
    "elementwise",
    "find",
    "flow",
    "layers",
    "linear_map",
    "masks",
    "movement",
    "norms",
    "register",
    "rotary",
    "rules",
]
