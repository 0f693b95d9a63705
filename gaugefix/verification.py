"""The soundness test: act with random elements on a re-randomised float64 copy and compare outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gaugefix.errors import VerificationError
from gaugefix.symmetry import Element, Exactness, GaugeGroup
from gaugefix.testing.trial import Trial

if TYPE_CHECKING:
    from torch import nn


_DRAWS, _STRIDE = 8, 1000
"""Random elements to choose from where some amplify rounding errors, and how far their seeds are apart."""


@dataclass(frozen=True)
class Check:
    """Result for one symmetry.

    Args:
        symmetry: its name (``"all"``: one random element of the whole group).
        error: largest relative change of any output, ‖y′ − y‖/‖y‖, over modes, shapes and draws.
        control: smallest relative change when one of the moved parameters is left behind (it must be large);
            ``nan`` if only one parameter moves.
        unseen: parameters whose motion alone changes no output. Nobody reads them, or they move along another
            symmetry: a key bias may move by anything. Where several symmetries meet, this is no fault.
    """

    symmetry: str
    error: float
    control: float
    unseen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verification:
    """Report of :func:`verify`."""

    checks: tuple[Check, ...]
    tolerance: float

    @property
    def error(self) -> float:
        """Largest relative error of all checks."""
        return max((check.error for check in self.checks), default=0.0)

    @property
    def ineffective(self) -> tuple[str, ...]:
        """Symmetries whose control did not change the output: a leg moves something that is :attr:`Check.unseen`."""
        return tuple(check.symmetry for check in self.checks if check.unseen)

    def __str__(self) -> str:
        lines = [f"{c.symmetry}: error {c.error:.1e}, control {c.control:.1e}" for c in self.checks]
        return "\n".join([*lines, f"largest error {self.error:.1e}, tolerance {self.tolerance:.1e}"])


def verify(
    model: nn.Module,
    gauge: GaugeGroup,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    tolerance: float = 1e-12,
    scale: float = 0.3,
    seed: int = 0,
) -> Verification:
    """Prove numerically that ``gauge`` leaves the function of ``model`` unchanged.

    On a float64 copy with re-randomised parameters and statistics, random elements (signs and permutations included)
    act on every symmetry alone and on all together; outputs are compared on fresh inputs, in two batch sizes where the
    model takes them, in eval mode, in train mode, and in eval mode after the running statistics were updated. Where the
    model computes in float32 by itself (norms, softmaxes), the copy computes in float64.

    Args:
        model: left as it is.
        gauge: group to test; only applied classes are tested.
        args: example inputs; fresh ones are drawn in their shapes.
        kwargs: example keyword inputs, likewise; masks take rows of the example.
        tolerance: largest relative error that passes.
        scale: of the random elements.
        seed: of parameters, inputs and elements.

    Raises:
        VerificationError: if an output changes; the message names the symmetry and its parameters. Also if an output
            of the copy has no finite number to compare.
        SymmetryError: if the group does not fit the model.
    """
    gauge.check(model)
    trial = Trial(model, args, kwargs or {}, seed)
    element = _draw(trial, gauge, scale, seed + 1)
    checks = [Check("all", _error(trial, gauge, element), float("nan"))]
    by_name = dict(element.steps)
    for symmetry in gauge.applied:
        alone = Element(((symmetry.name, by_name[symmetry.name]),))
        error = _error(trial, gauge, alone)
        if not error <= tolerance:
            raise VerificationError(
                f"Expected unchanged outputs for symmetry '{symmetry.name}' ({symmetry.group.symbol} on "
                f"{', '.join(symmetry.parameters)}), got a relative change of {error:.1e}. This symmetry is false for "
                "the model: leave it out with gauge.select and report the operation."
            )
        controls = _controls(trial, gauge, alone)
        unseen = tuple(name for name, change in controls.items() if change < 1e3 * tolerance)
        checks.append(Check(symmetry.name, error, min(controls.values(), default=float("nan")), unseen))
    if not checks[0].error <= tolerance * max(1, len(gauge.applied)) ** 0.5:
        raise VerificationError(
            f"Expected unchanged outputs for all symmetries together, got a relative change of {checks[0].error:.1e}. "
            "Each alone is sound: apply them one by one and report the combination."
        )
    return Verification(tuple(checks), tolerance)


def _draw(trial: Trial, gauge: GaugeGroup, scale: float, seed: int) -> Element:
    """Of some random elements, the one that amplifies rounding errors least: alone, or after those before it.

    Near a zero of what a conditional symmetry needs, an element that is right to rounding changes outputs by more.
    """
    drawn = (gauge.random(scale, seed + _STRIDE * k, discrete=True, conditional=True) for k in range(_DRAWS))
    if not any(s.conditional for s in gauge.applied):
        return next(drawn)
    return min(drawn, key=lambda element: _strain(trial, gauge, element))


def _strain(trial: Trial, gauge: GaugeGroup, element: Element) -> float:
    """The largest factor by which a step of the element may amplify rounding errors."""
    tensors, worst = {name: trial.state[name] for name in gauge.shapes}, 1.0
    for name, value in element.steps:
        if gauge[name].conditional:
            worst = max(worst, gauge[name].strain(trial.state, value), gauge[name].strain(tensors, value))
        if not worst < 1e6:
            return worst
        tensors.update(gauge[name].act(tensors, value))
    return worst


def _moved(trial: Trial, gauge: GaugeGroup, element: Element) -> dict[str, Tensor]:
    """The values of the parameters that the element changes."""
    tensors = {name: trial.state[name] for name in gauge.shapes}
    changed: dict[str, Tensor] = {}
    for name, value in element.steps:
        update = gauge[name].act(tensors, value)
        tensors.update(update)
        changed.update(update)
    return changed


def _error(trial: Trial, gauge: GaugeGroup, element: Element) -> float:
    """Relative error with dropout off, and with dropout on for the exact part."""
    worst = trial.change(_moved(trial, gauge, element), dropout=False)
    exact = tuple((n, v) for n, v in element.steps if gauge[n].exactness is Exactness.EXACT)
    # A random mask belongs to a position: an exchange of units is exact in distribution only.
    exact = tuple((n, v) for n, v in exact if v.is_floating_point())
    if not exact or not gauge.dropout:
        return worst
    return max(worst, trial.change(_moved(trial, gauge, Element(exact)), dropout=True))


def _controls(trial: Trial, gauge: GaugeGroup, element: Element) -> dict[str, float]:
    """The relative change when one of the moved parameters is left behind, for each; none if only one moves."""
    changed = _moved(trial, gauge, element)
    changed = {n: v for n, v in changed.items() if not torch.equal(v, trial.state[n])}
    if len(changed) < 2:
        return {}
    return {left: trial.change({n: v for n, v in changed.items() if n != left}, dropout=False) for left in changed}
