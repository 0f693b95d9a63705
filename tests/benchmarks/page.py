"""Tables of the benchmarks as a page of the documentation."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tests.benchmarks.cases import Case
from tests.benchmarks.memory import Use
from tests.benchmarks.ratio import Pair, Timing
from tests.benchmarks.step_overhead import Overhead

GOAL = 2.5
"""The ratio to the floor that a warm projection of a diagonal group should not exceed."""
WARM_ROWS = ("on the slice", "from 0.0001", "from 0.01")


@dataclass
class Measured:
    """What was measured on one case.

    Args:
        title: of the case.
        facts: in words: parameters, group, floor.
        stated: the batch of its training step.
        pairs: by label; each against the floor, but discovery, which is against its exports.
        memory: by label.
        bytes: of the model.
    """

    title: str
    facts: str
    stated: str
    pairs: dict[str, Pair] = field(default_factory=dict)
    memory: dict[str, Use] = field(default_factory=dict)
    bytes: int = 0

    @classmethod
    def of(cls, case: Case) -> Measured:
        """Describe a case."""
        count = sum(p.numel() for p in case.model.parameters())
        dtype = str(next(case.model.parameters()).dtype).removeprefix("torch.")
        owned = sum(t.numel() * t.element_size() for t in case.tensors)
        facts = (
            f"{count / 1e6:.1f} M parameters in {dtype}, {case.bytes / 1e6:.0f} MB; {case.gauge.dimension} redundant "
            f"dimensions, {case.diagonal.dimension} of them diagonal. The floor passes over {len(case.tensors)} "
            f"tensors, {owned / 1e6:.0f} MB."
        )
        return cls(case.kind.title, facts, case.kind.stated, bytes=case.bytes)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return a table in markdown; the first row is its head, the first column is text."""
    head, *body = rows
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


def machine(timing: Timing) -> str:
    """Return where and with what it was measured, in words."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    threads = torch.get_num_threads()
    load = f", load {os.getloadavg()[1]:.1f} over the last five minutes" if hasattr(os, "getloadavg") else ""
    return (
        f"{processor}, {os.cpu_count()} cores, {threads} thread{'s' if threads > 1 else ''}; torch "
        f"{torch.__version__}, Python {platform.python_version()}{load}. Times are "
        f"{'wall' if timing.clock == 'wall' else 'CPU'} times."
    )


def headline(measured: Iterable[Measured]) -> str:
    """Warm projections of diagonal groups, against the goal."""
    rows = [["warm `project_`, × floor", *WARM_ROWS, "floor with itself"]]
    for one in measured:
        found = [_diagonal(one, where) for where in WARM_ROWS]
        if any(found):
            noise = one.pairs.get("floor, again")
            rows.append([one.title, *(_range(p) if p else "" for p in found), _range(noise) if noise else ""])
    return table(rows) if len(rows) > 1 else ""


def _diagonal(one: Measured, where: str) -> Pair | None:
    """The projection of the diagonal part; of the whole group, where that is all."""
    return one.pairs.get(f"`project_`, diagonal part, {where}") or (
        None if any("diagonal part" in label for label in one.pairs) else one.pairs.get(f"`project_`, {where}")
    )


def _range(pair: Pair) -> str:
    return f"{pair.ratio:.2f} ({pair.low:.2f}-{pair.high:.2f})"


def times(one: Measured) -> str:
    """One case: everything that is paired with its floor."""
    steps = {name: one.pairs.get(label) for name, label in STEPS.items()}
    shown = {name: pair for name, pair in steps.items() if pair is not None}
    rows = [["", "ms", "× floor", "quartiles", "rounds", *(f"× {name}" for name in shown)]]
    for label, pair in one.pairs.items():
        if label != "discovery":
            ratios = [f"{pair.ratio / other.ratio:.2g}" for other in shown.values()]
            quartiles = f"{pair.low:.2f}-{pair.high:.2f}"
            rows.append([label, f"{1e3 * pair.first:.3g}", f"{pair.ratio:.2f}", quartiles, str(pair.rounds), *ratios])
    return table(rows)


STEPS = {"`SGD.step`": "`SGD.step`, momentum", "`AdamW.step`": "`AdamW.step`", "training step": "training step"}


def discoveries(measured: Iterable[Measured]) -> str:
    """Discovery, against the exports that it contains."""
    rows = [["discovery", "seconds", "exports, seconds", "ratio", "rounds"]]
    for one in measured:
        pair = one.pairs.get("discovery")
        if pair is not None:
            cells = [f"{pair.first:.3g}", f"{pair.second:.3g}", f"{pair.ratio:.2f}", str(pair.rounds)]
            rows.append([one.title, *cells])
    return table(rows) if len(rows) > 1 else ""


def memories(measured: Iterable[Measured]) -> str:
    """Bytes beyond the model."""
    rows = [["", "model, MB", "at most, MB", "× model", "stays, MB", "× model"]]
    for one in measured:
        for label, use in one.memory.items():
            cells = []
            for found in (use.peak, use.stays):
                cells += [f"{found / 1e6:.2f}", f"{found / one.bytes:.3f}"]
            rows.append([f"{one.title}: {label}", f"{one.bytes / 1e6:.0f}", *cells])
    return table(rows) if len(rows) > 1 else ""


def steps(found: Mapping[str, Mapping[str, Overhead]]) -> str:
    """The overhead of callbacks."""
    head = ["", "step, ms", "hooks, µs", "action, ms", "actions/steps", "by parts", "CPU", "wall", "discovery, s"]
    rows = [head]
    for recipe, callbacks in found.items():
        for name, o in callbacks.items():
            shares = [f"{100 * share:.2f} %" for share in (o.by_parts, o.cpu, o.wall)]
            numbers = [f"{1e3 * o.step:.3g}", f"{1e6 * o.hooks:.1f}", f"{1e3 * o.action:.2f}", f"{o.actions}/{o.steps}"]
            rows.append([f"{recipe}: `{name}`", *numbers, *shares, f"{o.discovery:.2f}"])
    return table(rows)


def page(
    command: str,
    timing: Timing,
    measured: Sequence[Measured],
    overhead: Mapping[str, Mapping[str, Overhead]],
    empty: float,
) -> str:
    """Everything that was measured."""
    parts = [HEAD.format(command=command, machine=machine(timing))]
    if top := headline(measured):
        parts += [WARM.format(goal=GOAL), top]
    if overhead:
        parts += [OVERHEAD.format(empty=1e6 * empty), steps(overhead)]
    for one in measured:
        if any(label != "discovery" for label in one.pairs):
            parts += [
                f"## {one.title}\n\n{one.facts} A training step is forward, backward and, where there is memory "
                f"for its state, AdamW, on {one.stated}.\n\n",
                times(one),
            ]
    if found := discoveries(measured):
        parts += [DISCOVERY, found]
    if found := memories(measured):
        parts += [MEMORY, found]
    return "".join(parts).rstrip() + "\n"


HEAD = """# Speed and memory

Written by `{command}`.

{machine}

Everything is measured in pairs within one process: what is timed and the floor in turn, which of them begins
alternates, and the ratio is the median over rounds of the ratios within one round. Ratios are what compares between
machines. The *floor* is one foreach norm pass plus one foreach scale pass over the parameters that the diagonal
symmetries own: about what reading and writing those parameters once must cost. *Floor, again* is that against itself:
how far from 1 it is, and its quartiles, say how far the others can be trusted. A *warm* projection starts near the
slice, as in training: a random element with that standard deviation of log λ away from it. That start is restored
before each round, and not timed. Each work was checked once: projections left the outputs alone and reached the slice,
measurements changed no bit.

"""
WARM = """## Warm projections of diagonal groups

The goal is {goal}. Quartiles in brackets.

"""
OVERHEAD = """## What callbacks add to a step

At default settings, in a `Trainer` with no logger and no other callback, on the networks and data of the recipes'
configurations. *Hooks* is what Lightning spends on calling hooks of callbacks, and optimizers on theirs, on steps
without an action, beyond the same without the callback; of that, {empty:.1f} µs are for an empty `Callback()`. *Action*
is the CPU time of a projection with its probe, or of a measurement; the one at the start is left out. *By parts* is
(hooks + action · actions/steps)/step: the goal is 1 %. The default interval of projections is 100 steps at first and
grows while they find little to do, so that its share falls with the length of a fit. *CPU* and *wall* are whole fits
with the callback against whole fits without, in turn; they scatter by more than the overhead where other programs run.
Discovery happens once per fit and is not included.

"""
DISCOVERY = """## Discovery

Against `torch.export` of the same model, in eval mode and, where its code asks for the mode, in train mode too.

"""
MEMORY = """## Memory

Bytes beyond what was there before: *at most* during the work, and what *stays* after it. Tensors are counted by torch's
profiler, allocation by allocation; arrays of numpy and Python's objects by tracemalloc. The first projection with a
group makes a plan and a scratch buffer that stay; later ones reuse them. `GaugeProjection` copies everything that
moves, so that it can take a projection back, and computes outputs before and after. Of GPT-2 and Llama this is the
diagonal part of the group.

"""
