"""Benchmarks: ``pytest tests/benchmarks --benchmark-only -s``. Ratios are printed and kept in ``extra_info``.

The floor is one foreach norm pass plus one foreach scale pass over the same tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

import gaugefix
from gaugefix.discovery.capture import capture
from gaugefix.slices import MinimalNorm
from gaugefix.symmetry import Element
from tests.benchmarks.models import mlp, resnet18
from tests.benchmarks.ratio import paired
from tests.discovery.transformers_large import gpt2, llama

NETS: dict[str, tuple[Callable[[], nn.Module], torch.Size]] = {
    "mlp": (mlp, torch.Size((2, 784))),
    "resnet18": (resnet18, torch.Size((2, 3, 64, 64))),
}


class Case:
    """A net on its slice, with the two reference passes."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        make, shape = NETS[name]
        self.model = make().eval()
        self.args = (torch.randn(shape),)
        self.gauge = gaugefix.discover(self.model, self.args)
        names = {n for s in self.gauge.applied for n in s.parameters}
        parameters = dict(self.model.named_parameters())
        self.tensors = [parameters[n].detach() for n in names if n in parameters]
        self.slice = MinimalNorm()
        gaugefix.project_(self.model, self.gauge, self.slice)

    def floor(self) -> None:
        torch._foreach_norm(self.tensors)
        torch._foreach_mul_(self.tensors, 1.0)

    def scramble(self, scale: float) -> Element:
        element = self.gauge.random(scale, seed=1)
        gaugefix.act_(self.model, self.gauge, element)
        return element

    def project(self) -> None:
        gaugefix.project_(self.model, self.gauge, self.slice)


@pytest.fixture(params=list(NETS))
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def report(benchmark, **ratios: float) -> None:
    benchmark.extra_info.update(ratios)
    print("  ".join(f"{name} {value:.4g}" for name, value in ratios.items()))  # noqa: T201 - the figures are the result


@pytest.mark.parametrize("nudge", [0.0, 1e-4, 1e-2])
def test_warm_projection(benchmark, case: Case, nudge: float) -> None:
    """Near the slice, the case during training: ``nudge`` is the per-unit log-std away from it."""
    parameters = [p for p in case.model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-12, momentum=0.9)
    away = case.gauge.random(nudge, seed=2) if nudge else Element(())

    def act_only() -> None:
        gaugefix.act_(case.model, case.gauge, away)

    def act_and_project() -> None:
        act_only()
        case.project()

    to_floor = paired(act_and_project, case.floor)
    if nudge:
        to_floor -= paired(act_only, case.floor)
    for p in parameters:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for p in parameters:
        p.grad = None
    seconds = paired(case.floor, case.floor)  # 1 up to noise: how far the ratios can be trusted
    for p in parameters:
        p.grad = torch.zeros_like(p)
    step_to_floor = paired(optimizer.step, case.floor)
    benchmark.pedantic(act_and_project, rounds=20, warmup_rounds=3)
    report(benchmark, nudge=nudge, to_floor=to_floor, to_sgd_step=to_floor / step_to_floor, noise=seconds)


def test_cold_projection(benchmark, case: Case) -> None:
    """From per-unit log-std 1 to max |log λ| < 1e-3."""
    case.scramble(1.0)
    loose = MinimalNorm(tolerance=1e-3)
    solve = lambda: loose.solve(case.gauge, case.gauge.check(case.model))  # noqa: E731 - a thunk to time
    ratio = paired(solve, case.floor, rounds=20)
    benchmark.pedantic(solve, rounds=10, warmup_rounds=2)
    report(benchmark, to_floor=ratio)


def test_discovery(benchmark, case: Case) -> None:
    """Against the export that it contains."""
    export = lambda: torch.export.export(case.model, case.args, strict=False)  # noqa: E731 - a thunk to time
    ratio = paired(lambda: gaugefix.discover(case.model, case.args), export, rounds=5, warmup=1)
    benchmark.pedantic(lambda: gaugefix.discover(case.model, case.args), rounds=3, warmup_rounds=1)
    report(benchmark, to_export=ratio)


@pytest.mark.parametrize(
    "make", [partial(gpt2, "124M"), partial(gpt2, "1.5B"), llama], ids=["gpt2", "gpt2-xl", "llama"]
)
def test_discovery_of_transformers(benchmark, make) -> None:
    """Against the exports that it contains: in eval mode, and in train mode where that differs."""
    model, args = make()
    ratio = paired(lambda: gaugefix.discover(model, args), lambda: capture(model, args), rounds=5, warmup=1)
    benchmark.pedantic(lambda: gaugefix.discover(model, args), rounds=3)
    report(benchmark, to_exports=ratio)


def test_drift(benchmark, case: Case) -> None:
    """A measurement of orbit drift."""
    ratio = paired(lambda: gaugefix.drift(case.model, case.gauge, case.slice), case.floor)
    benchmark.pedantic(lambda: gaugefix.drift(case.model, case.gauge, case.slice), rounds=20, warmup_rounds=3)
    report(benchmark, to_floor=ratio)
