"""When a symmetry holds: the classes that discovery reports apart."""

from __future__ import annotations

import enum


class Exactness(enum.Enum):
    """How exactly, and in which mode, a symmetry leaves the function unchanged."""

    EXACT = "exact"
    """For every input, in train mode and in eval mode, buffers moving along."""
    DROPOUT_FREE = "dropout-free"
    """As exact, while dropout is off."""
    ONE_MODE = "one mode only"
    """In eval mode only (a batch norm with frozen statistics is an affine map)."""
    EPSILON = "up to a norm's eps"
    """Scale in front of a normalization: exact only for eps = 0."""
    DATA_DEPENDENT = "data dependent"
    """On the data seen, not for every input (dead units)."""

    @property
    def applied(self) -> bool:
        """Whether ``random``, ``act_`` and ``project_`` use symmetries of this class."""
        return self in (Exactness.EXACT, Exactness.DROPOUT_FREE)
