"""A gauged field whose gauge was fitted to a solver, and what was measured when it was."""

from __future__ import annotations

from dataclasses import dataclass

from gaugefix.ode.gauged_field import GaugedField


@dataclass(frozen=True)
class GaugeFit:
    """What a fit measured, in equal steps of its solver.

    Attributes:
        points: inputs that the gauge was fitted to.
        held_out: other inputs, on which the errors were measured; 0 where there were too few, and then they were
            measured on those that it was fitted to.
        before: √E|Φ_steps(x₀) − Φ(x₀)|², the error without a gauge.
        after: the same with the gauge that was kept, never more than ``before``.
        iteration: steps of the optimizer after which that gauge was met; 0 is no gauge.

    Example:
        >>> GaugeFit(points=80, held_out=20, before=4e-3, after=5e-4, iteration=35).gain
        8.0
    """

    points: int
    held_out: int
    before: float
    after: float
    iteration: int

    @property
    def gain(self) -> float:
        """How many times smaller the error is with the gauge, at least 1; infinite where none is left."""
        if self.after == self.before:
            return 1.0
        return self.before / self.after if self.after else float("inf")


class FittedField(GaugedField):
    """What :func:`gaugefix.ode.fit_gauge.fit_gauge` returns: a :class:`GaugedField`, with a record of its fit.

    Attributes:
        fit: the record. It is not in checkpoints: ``None`` in a field that was made by hand or loaded.

    Example:
        >>> FittedField(lambda t, x: -x, n=2).fit is None
        True
    """

    fit: GaugeFit | None = None
