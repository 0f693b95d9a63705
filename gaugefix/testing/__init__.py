"""Law checks that ship with the package: for your own groups, rules and models."""

from gaugefix.testing.double_precision import double_precision
from gaugefix.testing.fresh_inputs import fresh_inputs
from gaugefix.testing.probe import Probe, relative_change
from gaugefix.testing.redundancy import Redundancy, randomise_, redundancy
from gaugefix.testing.same_steps import SameSteps
from gaugefix.testing.tolerance import assert_invariant, tolerance, tolerance_for

__all__ = [
    "Probe",
    "Redundancy",
    "SameSteps",
    "assert_invariant",
    "double_precision",
    "fresh_inputs",
    "randomise_",
    "redundancy",
    "relative_change",
    "tolerance",
    "tolerance_for",
]
