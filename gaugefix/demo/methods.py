"""What fixes the gauge of a run, in one word: ``minimal_norm@1``, ``charge:0.1``, ``flat+weight_decay:1e-3``.

A method is ``name[:strength][@every_n_steps]``, or several joined by ``+``. ``baseline`` changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gaugefix import regularizers
from gaugefix.callbacks import GaugeProjection
from gaugefix.errors import GaugeError, did_you_mean
from gaugefix.slices import slice_names

BASELINE = "baseline"
SOFT = "soft_"
"""Before the name of a term that is a slice too: ``unit_norm`` projects, ``soft_unit_norm`` only pulls."""

STRENGTHS = {"weight_decay": 1e-3, "kinetic": 1e-3, "l2": 1e-3, "charge": 1e-3, "balance": 1e-3}
"""Strength of a part that names none; 1e-3 for a term that is not here."""
RECIPE_STRENGTHS = {("transformer", "weight_decay"): 0.1, ("neural_ode", "weight_decay"): 0.1}
"""Where another strength than that of :data:`STRENGTHS` is usual: AdamW's decay is not part of the gradient."""
EVERY = 100
"""Optimizer steps between two fits of a clock that does not say."""
LAZY = 4
"""Optimizer steps between two additions of a term that does not say, each of which counts as many times: a quarter of
the cost."""
UNBALANCED_LOG_STD = 1.5
"""Standard deviation of log λ of an unbalanced start."""

OPTIONS = {"weight_decay": "model.weight_decay", "kinetic": "model.kinetic"}
"""Parts that are an option of the model."""
CLOCKS = ("equidistribution", "proper_time")
"""Slices of the gauge of time."""
NOT_PROJECTED = ("reference",)
"""Slices that need more than a name."""
ONLY_IN = {"kinetic": "neural_ode", **dict.fromkeys(CLOCKS, "neural_ode")}
FIXING = ("gaugefix.GaugeProjection", "gaugefix.GaugeRegularizer", "gaugefix.demo.time_grid.TimeGrid")
START = "gaugefix.demo.unbalanced_start.UnbalancedStart"


class MethodError(GaugeError, ValueError):
    """A method that is unknown or not well formed."""


@dataclass(frozen=True)
class Method:
    """A method of one recipe.

    Attributes:
        label: as it was typed; its name in every result.
        options: dotted option of the recipe → value.
        callbacks: ``{"class_path": ..., "init_args": ...}`` of what acts on the gauge, in order.
    """

    label: str
    options: tuple[tuple[str, float], ...] = ()
    callbacks: tuple[dict[str, Any], ...] = ()


def term_names() -> tuple[str, ...]:
    """Return the names of all terms, as the command line has them."""
    slices = slice_names()
    return tuple(SOFT + name if name in slices else name for name in regularizers.term_names())


def projected() -> tuple[str, ...]:
    """Return the slices that a projection can be given by name."""
    return tuple(name for name in slice_names() if name not in NOT_PROJECTED)


def method_names(recipe: str) -> tuple[str, ...]:
    """Return every name that a method of this recipe can begin with."""
    names = [BASELINE, *OPTIONS, *projected(), *term_names(), *CLOCKS]
    return tuple(name for name in names if ONLY_IN.get(name, recipe) == recipe)


def parse_method(label: str, recipe: str) -> Method:
    """Read a method.

    Args:
        label: such as ``minimal_norm@1+l2:1e-4``.
        recipe: its options, clocks and usual strengths differ.

    Raises:
        MethodError: for an unknown name, with the nearest one and the list, or for a number that does not belong.

    Example:
        >>> parse_method("weight_decay:0.01", "feedforward").options
        (('model.weight_decay', 0.01),)
    """
    options: dict[str, float] = {}
    terms: list[dict[str, Any]] = []
    projections: list[dict[str, Any]] = []
    clocks: list[dict[str, Any]] = []
    parts = [_read(part, label, recipe) for part in label.split("+")]
    names = [name for name, _, _ in parts]
    if len({*names}) < len(names) or (BASELINE in names and len(names) > 1) or len({*names} & {*CLOCKS}) > 1:
        raise MethodError(
            f"Expected parts that go together for the method, got '{label}'. Name each part once, at most one of "
            f"{' and '.join(CLOCKS)}, and {BASELINE} alone."
        )
    for name, strength, every in parts:
        if name in OPTIONS:
            options[OPTIONS[name]] = strength if strength is not None else usual_strength(name, recipe)
        elif name in CLOCKS:
            clocks.append(_callback(FIXING[2], slice=name, every_n_steps=every or EVERY))
        elif name in projected():
            interval = every or GaugeProjection(name).every_n_steps  # written out: a default may change
            projections.append(_callback(FIXING[0], slice=name, every_n_steps=interval))
        elif name != BASELINE:
            given = strength if strength is not None else usual_strength(name, recipe)
            terms.append(
                _callback(FIXING[1], term=name.removeprefix(SOFT), strength=given, every_n_steps=every or LAZY)
            )
    if len(projections) > 1:  # callbacks of one class need names of their own
        for callback in projections:
            callback["init_args"]["name"] = callback["init_args"]["slice"]
    return Method(label, tuple(options.items()), (*terms, *projections, *clocks))


def usual_strength(name: str, recipe: str) -> float:
    """Return the strength of a part that names none."""
    return RECIPE_STRENGTHS.get((recipe, name), STRENGTHS.get(name, 1e-3))


def check_base(callbacks: Iterable[str], what: str) -> None:
    """Refuse to put a method on top of a configuration that fixes a gauge already.

    Args:
        callbacks: the class paths in the configuration.
        what: the option that has the method.

    Raises:
        MethodError: if one of them is a projection, a regularizer or a clock.
    """
    kinds = {path.rsplit(".", 1)[-1] for path in FIXING}
    fixing = sorted({path for path in callbacks if path.rsplit(".", 1)[-1] in kinds})
    if fixing:
        raise MethodError(
            f"Expected a configuration that leaves the gauge alone for {what}, got one with {', '.join(fixing)}. "
            "Give the baseline's."
        )


def with_method(
    method: Method | None,
    start: str | None,
    callbacks: list[dict[str, Any]],
    seed: int,
    log_std: float = UNBALANCED_LOG_STD,
) -> list[dict[str, Any]]:
    """Return all callbacks: the start, what fixes the gauge, and behind it those that measure.

    Args:
        method: None for the callbacks as they are.
        start: unbalanced for the same function from parameters far from every slice.
        callbacks: those of the configuration.
        seed: of the unbalanced start.
        log_std: of the unbalanced start.
    """
    first = [_callback(START, log_std=log_std, seed=seed)] if start == "unbalanced" else []
    return [*first, *(method.callbacks if method else ()), *callbacks]


def _callback(path: str, **settings: Any) -> dict[str, Any]:
    return {"class_path": path, "init_args": settings}


def _read(part: str, label: str, recipe: str) -> tuple[str, float | None, int | None]:
    """The name, strength and interval of one part."""
    front, at, interval = part.partition("@")
    name, colon, number = front.partition(":")
    if name not in method_names(recipe):
        elsewhere = f" '{name}' belongs to the recipe {ONLY_IN[name]}." if name in ONLY_IN else ""
        raise MethodError(
            f"Expected a method for {recipe}, got '{label}'.{elsewhere} {did_you_mean(name, method_names(recipe))}"
        )
    strong = name in OPTIONS or name in term_names()
    if colon and not strong:
        raise MethodError(
            f"Expected no strength for {name}, got '{label}'. Only terms have one: leave ':{number}' out."
        )
    if at and (name in OPTIONS or name == BASELINE):
        raise MethodError(f"Expected no interval for {name}, got '{label}'. Leave '@{interval}' out.")
    return name, _strength(number, label) if colon else None, _interval(interval, label) if at else None


def _strength(text: str, label: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise MethodError(
            f"Expected a positive number behind ':', got '{text}' in '{label}'. Write it like charge:0.001."
        )
    return value


def _interval(text: str, label: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise MethodError(
            f"Expected a positive number of optimizer steps behind '@', got '{text}' in '{label}'. Write it like "
            "minimal_norm@100."
        )
    return int(text)
