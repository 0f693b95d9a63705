"""Interval: how long until the next projection, by how far the last one had to go."""

from __future__ import annotations

_CLOSE, _FAR = 0.02, 0.1
"""Root mean square of log λ per redundant dimension: a drift below the first is a matter of 2 % and can wait."""
_LONGEST = 16
"""Times the shortest interval."""


class Interval:
    """Optimizer steps between two projections: doubled after one that found little to do, halved after one that did.

    In the recipes drift falls from 2 % per 100 steps to 0.1 % within a thousand steps, so that a fixed interval is too
    long at first or too short later.

    Args:
        shortest: where it starts; the longest is 16 times that.

    Example:
        >>> interval = Interval(100)
        >>> interval.is_due(100), interval.note(100, drift=0.01), interval.is_due(200), interval.is_due(300)
        (True, None, False, True)
    """

    def __init__(self, shortest: int) -> None:
        self.shortest = shortest
        self.restart()

    def restart(self) -> None:
        """Begin with the shortest interval."""
        self.steps = self.next = self.shortest

    def is_due(self, step: int) -> bool:
        """Whether to project at ``step``, a multiple of the shortest interval."""
        return step >= self.next

    def note(self, step: int, drift: float) -> None:
        """Take in how far a projection went.

        Args:
            step: where it was made.
            drift: root mean square of log λ over the redundant dimensions; NaN if there was none, for a reason that
                says nothing about the next one.
        """
        if drift < _CLOSE:
            self.steps = min(2 * self.steps, _LONGEST * self.shortest)
        elif not drift <= _FAR:
            self.steps = max(self.steps // 2, self.shortest) if drift > _FAR else self.shortest
        self.next = step + self.steps

    def state_dict(self) -> dict[str, int]:
        """Plain numbers."""
        return {"steps": self.steps, "next": self.next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a checkpoint."""
        self.steps, self.next = int(state["steps"]), int(state["next"])
