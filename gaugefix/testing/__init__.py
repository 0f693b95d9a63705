"""Law checks that ship with the package: for your own groups, rules and models."""

from gaugefix.testing.probe import Probe, relative_change
from gaugefix.testing.redundancy import Redundancy, fresh_inputs, randomise_, redundancy
from gaugefix.testing.tolerance import assert_invariant, tolerance, tolerance_for

__all__ = [
    "Probe",
    "Redundancy",
    "assert_invariant",
    "fresh_inputs",
    "randomise_",
    "redundancy",
    "relative_change",
    "tolerance",
    "tolerance_for",
]
