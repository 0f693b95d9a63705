"""What is timed on every case: one table for the command and for pytest.

Every work is checked once: that what moves parameters along an orbit leaves the outputs alone and reaches the slice,
and that what only measures changes no bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import gaugefix
from gaugefix.discovery.capture import capture
from gaugefix.errors import SettingError
from gaugefix.regularizers import get_term
from gaugefix.symmetry import GaugeGroup, named_tensors
from gaugefix.testing import assert_invariant
from tests.benchmarks.cases import Case
from tests.benchmarks.ratio import Work, nothing

TERMS = ("charge", "balance")
WARM, FAR, COLD = 1e-4, 1e-2, 1.0
"""Standard deviations of log λ."""
DISTANCES = (0.0, WARM, FAR, COLD)
PARTS = {"diagonal": ", diagonal part", "whole": ""}


@dataclass(frozen=True)
class Timed:
    """A piece of work.

    Args:
        work: what is timed.
        check: raises if it does not do what it should.
        before: run before each, not timed.
        against: what it is paired with; by default the floor of its case.
    """

    work: Work
    check: Work
    before: Work = nothing
    against: Work | None = None


def projection(case: Case, part: str, log_std: float, optimizer: str | None = None) -> Timed | None:
    """Project from a distance; with an optimizer its state and gradients move along, as they do in training.

    None where there is no memory for the optimizer, or where the diagonal part is the whole group.
    """
    gauge = group(case, part)
    if gauge is None or log_std not in getattr(case.kind, part):
        return None
    if optimizer is not None and (optimizer not in case.kind.optimizers or gauge is not case.diagonal):
        return None
    attached = [] if optimizer is None else [case.optimizer(optimizer)]
    put_back = case.start(log_std, gauge)

    def work() -> None:
        gaugefix.project_(case.model, gauge, case.slice, attached)

    def before() -> None:
        put_back()
        if attached and next(case.model.parameters()).grad is None:
            case.fill_gradients()

    def check() -> None:
        before()
        assert_invariant(case.model, case.args, work)
        left = gaugefix.drift(case.model, gauge, case.slice)
        eps = max(torch.finfo(p.dtype).eps for p in case.model.parameters())
        most = max(1e-3, eps)  # half precision cannot be nearer than it rounds
        assert left.rms < most, f"{left.rms:.1e} from the slice after a projection ({most:.1e} at most)"

    return Timed(work, check, before)


def group(case: Case, part: str) -> GaugeGroup | None:
    """Return the whole group or its diagonal part; None for a diagonal part that is the whole group."""
    if part == "whole":
        return case.gauge
    return None if case.diagonal is case.gauge else case.diagonal


def drift(case: Case, part: str) -> Timed | None:
    """Measure the orbit drift from where a projection is warm (of a large model, of the diagonal part only)."""
    gauge = group(case, part)
    if gauge is None or (part == "whole" and not case.kind.small):
        return None
    log_std = FAR  # in half precision, nearer is within rounding
    put_back = case.start(log_std, gauge)

    def work() -> gaugefix.Drift:
        return gaugefix.drift(case.model, gauge, case.slice)

    def check() -> None:
        put_back()
        before = _values(case)
        found = work()
        assert 0.5 * log_std < found.rms < 2.0 * log_std, f"a drift of {found.rms:.1e} at a distance of {log_std:.1e}"
        assert all(torch.equal(a, b) for a, b in zip(before, _values(case), strict=True))

    return Timed(work, check, put_back)


def term(case: Case, name: str) -> Timed | None:
    """Add the gradient of a regularizer's term, as GaugeRegularizer does at every step; None if it does not apply."""
    found = get_term(name)
    try:
        found.check(case.gauge)
    except SettingError:
        return None
    tensors = named_tensors(case.model)
    gradients: dict[str, Tensor] = {}

    def before() -> None:
        if not gradients:
            gradients.update({n: torch.zeros_like(p) for n, p in case.model.named_parameters()})

    def work() -> None:
        found.add_gradient_(case.gauge, tensors, gradients, 1.0)

    def check() -> None:
        before()
        values = _values(case)
        work()
        size = math.sqrt(sum(float(g.float().square().sum()) for g in gradients.values()))
        assert 0.0 < size < math.inf, f"a gradient of size {size}"
        assert all(torch.equal(a, b) for a, b in zip(values, _values(case), strict=True))

    return Timed(work, check, before)


def discovery(case: Case) -> Timed:
    """Find the group, against the exports that this contains."""

    def work() -> GaugeGroup:
        return gaugefix.discover(case.model, case.args)

    def check() -> None:
        found = case.gauge  # found once before; finding it again takes as long as all the rest for a large model
        assert found.dimension > 0
        assert not found.unknown_ops

    return Timed(work, check, against=lambda: capture(case.model, case.args))


def step(case: Case, name: str) -> Timed | None:
    """One step of an optimizer with gradients."""
    if name not in case.kind.optimizers:
        return None
    optimizer = case.optimizer(name)

    def before() -> None:
        if next(case.model.parameters()).grad is None:
            case.fill_gradients()

    def check() -> None:
        assert all(optimizer.state[p] for p in case.model.parameters())

    return Timed(lambda: optimizer.step(), check, before)


def training_step(case: Case) -> Timed:
    """Forward, backward and AdamW's step, or no step where there is no memory for its state."""
    optimizer = case.optimizer("AdamW") if "AdamW" in case.kind.optimizers else None
    work = case.training_step(optimizer)

    def check() -> None:
        work()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in case.model.parameters())

    return Timed(work, check)


def _values(case: Case) -> list[Tensor]:
    return [t.detach().clone() for t in case.gauge.check(case.model).values()]


def _distance(log_std: float) -> str:
    return "on the slice" if not log_std else f"from {log_std:g}"


WORKS: dict[str, dict[str, Callable[[Case], Timed | None]]] = {
    "discovery": {"discovery": discovery},
    "steps": {
        "`SGD.step`, momentum": lambda case: step(case, "SGD"),
        "`AdamW.step`": lambda case: step(case, "AdamW"),
        "training step": training_step,
    },
    "projection": {
        f"`project_`{of}, {_distance(d)}{with_}": (lambda case, p=part, d=d, o=o: projection(case, p, d, o))
        for part, of in PARTS.items()
        for d, o, with_ in (
            *((d, None, "") for d in DISTANCES),
            *((WARM, o, f", with {o}'s state and gradients") for o in ("SGD", "AdamW")),
        )
    },
    "drift": {f"`drift`{of}": (lambda case, p=part: drift(case, p)) for part, of in PARTS.items()},
    "terms": {f"gradient of term `{name}`": (lambda case, name=name: term(case, name)) for name in TERMS},
}
"""By kind and label; None where a work does not apply to a case."""
