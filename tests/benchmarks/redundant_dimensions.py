"""The redundant dimensions of models in the sizes that are in use, by kind.

    python -m tests.benchmarks.redundant_dimensions docs/evidence/redundant_dimensions.md

Writes the table; about a minute on one core, in 2 GB.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import Tensor, nn

import gaugefix
from gaugefix.discovery.capture import capture
from gaugefix.groups import ComplexScaling, GeneralLinear
from gaugefix.symmetry import LinearSymmetry, ReaderKernel, ResidualRotation, ShiftSymmetry, Symmetry, WriterKernel
from tests.discovery.transformers_large import GPT2, GPT2_SIZES, gpt2, llama

Model = tuple[nn.Module, tuple[Tensor, ...]]
KINDS = ("heads", "planes", "scalings", "shifts", "writers", "readers", "rotations")
MODELS: dict[str, Callable[[], Model]] = {
    **{f"GPT-2 {size}": partial(gpt2, size) for size in GPT2_SIZES},
    "GPT-2 124M, untied": lambda: untied(*gpt2("124M")),
    "Llama 1B": llama,
}

HEAD = """# Redundant dimensions of models in the sizes that are in use

How many dimensions of the parameters change nothing that the model computes (with dropout off), by what moves them:
*heads* GL(64) of queries against keys and of values against outputs; *planes* what rotary positions leave of it, one
complex factor for each plane; *scalings* of gains and gated units; *shifts* of biases; *writers* and *readers*, kernels
of layer norms; *rotations* of the residual stream. Tied embeddings rule out rotations, and the scalings of the last
norm. *Exact* counts what holds with dropout on too. Parameters are on the meta device: the group depends on shapes
alone. *Export* (of both modes) and *discovery*, which includes it, are seconds on one core, one run each.

    python -m tests.benchmarks.redundant_dimensions docs/evidence/redundant_dimensions.md

"""


def untied(model: GPT2, args: tuple[Tensor, ...]) -> Model:
    model.head.weight = nn.Parameter(model.head.weight.detach())
    return model, args


def kind(symmetry: Symmetry) -> str:
    if isinstance(symmetry, LinearSymmetry):
        return {GeneralLinear: "heads", ComplexScaling: "planes"}.get(type(symmetry.group), "scalings")
    return {ShiftSymmetry: "shifts", WriterKernel: "writers", ReaderKernel: "readers", ResidualRotation: "rotations"}[
        type(symmetry)
    ]


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def row(name: str) -> list[str]:
    """One line of the table."""
    model, args = MODELS[name]()
    begin = time.perf_counter()
    gauge = gaugefix.discover(model, args)
    discovery = time.perf_counter() - begin
    found = {k: sum(s.dimension for s in gauge.applied if kind(s) == k) for k in KINDS}
    size = sum(p.numel() for p in model.parameters())
    assert gauge.dimension == sum(found.values())
    times = seconds(lambda: capture(model, args)), discovery
    counts = [size, *found.values(), gauge.dimension, gauge.exact().dimension]
    numbers = [f"{n:,}".replace(",", " ") for n in counts]
    return [name, *numbers, f"{gauge.dimension / size:.2%}", *(f"{t:.1f}" for t in times)]


def main(path: str) -> None:
    head = ["model", "parameters", *KINDS, "total", "exact", "share", "export", "discovery"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *map(row, MODELS)]
    Path(path).write_text(HEAD + "".join(f"| {' | '.join(line)} |\n" for line in lines))


if __name__ == "__main__":
    main(sys.argv[1])
