"""What can go wrong, each error with the name of the thing and the mend.

The sentence is always "Expected <what> for <name>, got <value>. <mend>."
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GaugeError(Exception):
    """Base class of everything gaugefix raises on purpose."""


class GroupError(GaugeError, ValueError):
    """An element, algebra vector or tensor that does not fit its group."""


class SymmetryError(GaugeError, ValueError):
    """A leg, symmetry or gauge group that is not well formed or does not fit the model."""


class DiscoveryError(GaugeError, RuntimeError):
    """The model could not be captured or analysed."""


class VerificationError(GaugeError, AssertionError):
    """A claimed symmetry changes the function."""


class SliceError(GaugeError, ValueError):
    """A slice that is unknown, or that this model has no point on."""


class TransportError(GaugeError, TypeError):
    """Something attached to a parameter has no known law of transport."""


class NonFiniteError(GaugeError, ValueError):
    """A parameter holds NaN or infinity; nothing was changed."""


class SettingError(GaugeError, ValueError):
    """A setting of a callback that is wrong, or that this training run cannot honour."""


class CheckpointError(GaugeError, RuntimeError):
    """A checkpoint that belongs to another model or another version."""


class FieldError(GaugeError, ValueError):
    """A field of a neural ODE, its gauge or its lattice that is not well formed, or points that do not fit it."""


class DiffeomorphismError(GaugeError, ValueError):
    """A map of spacetime that folds, cannot be inverted, or moves what it must leave in place."""


class ProjectionWarning(UserWarning):
    """A projection was skipped, taken back or switched off; training goes on."""


class NoEffectWarning(UserWarning):
    """gaugefix found nothing to do."""


class ConvergenceWarning(UserWarning):
    """An iteration stopped at its limit, closer to its goal but not there."""


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Return ``"Did you mean 'x'? "`` for a near miss, and the list of all options."""
    known = sorted(options)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    return f"{hint}Available: {', '.join(known)}."
