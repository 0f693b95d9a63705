"""Where the time of a warm projection goes, part by part, against the foreach floor.

    python -m tests.benchmarks.warm_profile mlp resnet18 resnet50
    python -m tests.benchmarks.warm_profile resnet50 --nudge 1e-2 --optimizer AdamW --ops

By default for the first three models, and for the diagonal part of the group as well as for the whole. Where other
programs run on the machine, ``--clock cpu`` is what to trust. Parts are timed by themselves, each in pairs with the
floor; their sum is what ``project_`` should cost.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import torch
from torch.profiler import ProfilerActivity, profile

import gaugefix
from gaugefix.projection import solve
from gaugefix.slices.minimal_norm import balance_of
from gaugefix.symmetry import GaugeGroup
from tests.benchmarks.cases import KINDS, OPTIMIZERS, Case
from tests.benchmarks.ratio import CLOCKS, Pair, Work, pairs


def works(case: Case, gauge: GaugeGroup, optimizers: list[torch.optim.Optimizer]) -> Iterator[tuple[str, Work]]:
    """The whole, and its parts."""
    yield "floor with itself", case.floor
    yield "project_", lambda: gaugefix.project_(case.model, gauge, case.slice, optimizers)
    yield "  check of names and shapes", lambda: gauge.check(case.model)
    yield "  solve", lambda: solve(case.model, gauge, case.slice)
    tensors = {name: t.detach() for name, t in gauge.check(case.model).items()}
    yield "    moments (one pass)", lambda: balance_of(gauge).here(tensors)
    element = solve(case.model, gauge, case.slice)
    yield "  act_", lambda: gaugefix.act_(case.model, gauge, element, optimizers)


def line(label: str, pair: Pair) -> str:
    return f"  {label:30} {1e3 * pair.first:8.3f} ms  {pair.ratio:6.2f}× floor  ({pair.low:.2f}-{pair.high:.2f})"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="case", help=f"of {', '.join(KINDS)} (default: the first three)")
    parser.add_argument("--nudge", type=float, default=1e-4, help="log-std away from the slice (default 1e-4)")
    parser.add_argument("--part", choices=["diagonal", "whole"], help="of the group (default: both, if they differ)")
    parser.add_argument("--optimizer", choices=list(OPTIMIZERS), help="attach one")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu where other programs run too")
    parser.add_argument("--ops", action="store_true", help="torch's profile of 10 projections, too")
    given = parser.parse_args(argv)
    write = sys.stdout.write
    for name in given.cases or list(KINDS)[:3]:
        case = Case(name)
        size = sum(t.numel() * t.element_size() for t in case.tensors) / 1e6
        optimizers = [case.optimizer(given.optimizer)] if given.optimizer else []
        groups = {"diagonal": case.diagonal, "whole": case.gauge}
        if case.diagonal is case.gauge:
            del groups["diagonal"]
        for part, gauge in groups.items():
            if given.part not in (None, part) and len(groups) > 1:
                continue
            write(f"{case.kind.title}, {part} group; floor: {len(case.tensors)} tensors, {size:.1f} MB\n")
            put_back = case.start(given.nudge, gauge)
            for label, work in works(case, gauge, optimizers):
                found = pairs(work, case.floor, given.rounds, before=put_back, clock=CLOCKS[given.clock])
                write(line(label, found) + "\n")
            if given.ops:
                with profile(activities=[ProfilerActivity.CPU]) as seen:
                    for _ in range(10):
                        put_back()
                        gaugefix.project_(case.model, gauge, case.slice, optimizers)
                write(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=20) + "\n")


if __name__ == "__main__":
    main()
