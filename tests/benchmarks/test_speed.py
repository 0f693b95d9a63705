"""The works of ``python -m tests.benchmarks``, one by one, with ``pytest tests/benchmarks --benchmark-only -s``.

Ratios are printed and kept in ``extra_info``; what the floor is, and how pairs are timed, is said in the page that the
command writes.
"""

from __future__ import annotations

from functools import partial

import pytest

import gaugefix
from gaugefix.discovery.capture import capture
from tests.benchmarks.cases import Case
from tests.benchmarks.memory import uses
from tests.benchmarks.ratio import Timing, paired
from tests.benchmarks.works import WORKS
from tests.discovery.transformers_large import gpt2, llama

CASES = ("mlp", "resnet18", "resnet50")
TIMING = Timing(rounds=60, budget=2.0)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def report(benchmark, **ratios: float) -> None:
    benchmark.extra_info.update(ratios)
    print("  ".join(f"{name} {value:.4g}" for name, value in ratios.items()))  # noqa: T201 - the figures are the result


@pytest.mark.parametrize(("what", "label"), [(what, label) for what, works in WORKS.items() for label in works])
def test_work(benchmark, case: Case, what: str, label: str) -> None:
    """Each against its floor (discovery: against its exports), beside the floor against itself."""
    timed = WORKS[what][label](case)
    if timed is None:
        pytest.skip("does not apply to this model")
    timed.check()
    pair = TIMING.pairs(timed.work, timed.against or case.floor, timed.before)
    noise = TIMING.pairs(case.floor, case.floor)
    benchmark.pedantic(timed.work, setup=timed.before, rounds=min(pair.rounds, 20))
    report(benchmark, ratio=pair.ratio, low=pair.low, high=pair.high, noise=noise.ratio)


def test_memory(benchmark, case: Case) -> None:
    """Bytes beyond the model, as parts of it: at most, and what stays."""
    found = benchmark.pedantic(lambda: dict(uses(case)), rounds=1)
    report(
        benchmark,
        **{
            f"{label}, {kind}": getattr(use, kind) / case.bytes
            for label, use in found.items()
            for kind in ("peak", "stays")
        },
    )


@pytest.mark.parametrize(
    "make", [partial(gpt2, "124M"), partial(gpt2, "1.5B"), llama], ids=["gpt2", "gpt2-xl", "llama"]
)
def test_discovery_of_transformers(benchmark, make) -> None:
    """Without parameters; against the exports: in eval mode, and in train mode where that differs."""
    model, args = make()
    ratio = paired(lambda: gaugefix.discover(model, args), lambda: capture(model, args), rounds=5, warmup=1)
    benchmark.pedantic(lambda: gaugefix.discover(model, args), rounds=3)
    report(benchmark, to_exports=ratio)
