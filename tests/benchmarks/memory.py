"""What a projection needs in memory beyond the model: at most meanwhile, and what stays afterwards.

Tensors are counted by torch's profiler, which reports every allocation and release of its CPU allocator; arrays of
numpy and Python's objects, which make up part of a compiled plan, by tracemalloc.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.profiler import ProfilerActivity, profile

import gaugefix
from gaugefix.callbacks.example_inputs import ExampleInputs
from gaugefix.callbacks.gauge_source import Analysed
from gaugefix.callbacks.guard import guarded_act_
from gaugefix.projection import solve
from gaugefix.slices import diagonal_part
from tests.benchmarks.cases import Case
from tests.benchmarks.ratio import Work


@dataclass(frozen=True)
class Use:
    """Bytes beyond what was there before.

    Args:
        peak: the most during the work.
        stays: what is left after it.
    """

    peak: int
    stays: int


def use(work: Work) -> Use:
    """Run the work and count."""
    gc.collect()
    tracemalloc.start()
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            work()
        gc.collect()
        objects, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return Use(peak + most, max(now, 0) + objects)


def uses(case: Case) -> Iterator[tuple[str, Use]]:
    """The first projection with a group that was just found, the next ones, and one as GaugeProjection makes it.

    The model begins where it was initialised; later projections start nearby. Of large models only the diagonal part.
    """
    gauge = gaugefix.discover(case.model, case.args) if case.projected else case.gauge
    gauge = gauge if case.kind.small else diagonal_part(gauge)
    case.projected = True
    optimizers: list[Optimizer] = []

    def project() -> None:
        gaugefix.project_(case.model, gauge, case.slice, optimizers)

    def leave() -> None:
        gaugefix.act_(case.model, gauge, gauge.random(1e-4, seed=2), optimizers)

    yield "first `project_`", use(project)
    with_ = ""
    for name in ("", *case.kind.optimizers):
        if name:
            optimizers[:] = [case.optimizer(name)]
            case.fill_gradients()
            with_ = f", with {name}'s state and gradients"
        leave()
        yield f"next `project_`{with_}", use(project)
    found = Analysed("", case.model, gauge, ExampleInputs(case.args, {}))

    def guarded() -> None:
        element = solve(case.model, gauge, case.slice)
        kept, error = guarded_act_(found, element, optimizers, [], "error", bool)
        assert kept, f"a projection was taken back: the outputs changed by {error:.1e}"

    leave()
    yield f"in `GaugeProjection`{with_}", use(guarded)
    case.model.zero_grad(set_to_none=True)
