"""Speed and memory of everything, in pairs within one process.

    OMP_NUM_THREADS=1 python -m tests.benchmarks
    python -m tests.benchmarks --only mlp,resnet18 --what projection,drift --clock cpu

The whole takes about ten minutes and 8 GB, and writes docs/evidence/speed.md; a part of it is printed only, unless
--out says where to write it.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import warnings
from pathlib import Path

import torch

from tests.benchmarks.cases import KINDS, Case
from tests.benchmarks.memory import uses
from tests.benchmarks.page import Measured, page
from tests.benchmarks.ratio import CLOCKS, Timing
from tests.benchmarks.step_overhead import RECIPES, Overhead, empty_hooks, overheads
from tests.benchmarks.works import WORKS

PAGE = Path("docs/evidence/speed.md")
WHATS = ("memory", *WORKS, "callbacks")
QUICK_CASES = ("mlp", "resnet18")
LENGTHS = {"feedforward": 1000, "neural ODE": 900, "transformer": 500}
"""Steps of a fit: what the recipes' configurations take, of the transformer half."""
QUICK_RECIPES = ("feedforward", "neural ODE")


def chosen(kind: str, known: tuple[str, ...]):
    """Return a reader of a comma-separated choice."""

    def read(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if strange := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"expected {kind} of {', '.join(known)}; got {', '.join(strange)}")
        return names

    return read


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", type=chosen("models", tuple(KINDS)), help=f"of {', '.join(KINDS)}")
    add("--what", type=chosen("kinds of work", WHATS), help=f"of {', '.join(WHATS)}")
    add("--rounds", type=int, help="pairs at most (default 60; 5 with --quick)")
    add("--quick", action="store_true", help="few rounds, small models and recipes unless --only says otherwise")
    add("--clock", choices=list(CLOCKS), default="wall", help="cpu where other programs run too (needs one thread)")
    add("--threads", type=int, default=1, help="of torch (default 1)")
    add("--out", type=Path, help=f"file to write (default: {PAGE} for the whole, none for a part)")
    given = parser.parse_args(argv)
    if given.clock == "cpu" and given.threads > 1:
        parser.error("--clock cpu adds the times of all threads: take --threads 1")
    if given.rounds is not None and given.rounds < 1:
        parser.error("--rounds must be 1 or more")
    return given


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def measure(name: str, whats: tuple[str, ...], timing: Timing) -> Measured:
    """Everything about one model."""
    case = Case(name)
    found = Measured.of(case)
    say(f"\n{found.title}: {found.facts}")
    if "memory" in whats:  # first: a plan that exists already would not be counted
        for label, use in uses(case):
            found.memory[label] = use
            say(f"  {label:64} {use.peak / 1e6:9.2f} MB  stays {use.stays / 1e6:9.2f} MB")
    timed = [what for what in WORKS if what in whats]
    if any(what != "discovery" for what in timed):
        found.pairs["floor, again"] = timing.pairs(case.floor, case.floor)
    for what in timed:
        for label, make in WORKS[what].items():
            work = make(case)
            if work is not None:
                work.check()
                pair = timing.pairs(work.work, work.against or case.floor, work.before)
                found.pairs[label] = pair
                against = "exports" if work.against else "floor"
                say(f"  {label:64} {1e3 * pair.first:9.3f} ms  {pair.ratio:8.2f} × {against} ({pair.rounds} rounds)")
            del work
            case.model.zero_grad(set_to_none=True)
    return found


def main(argv: list[str] | None = None) -> None:
    given = arguments(argv)
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(given.threads)
    timing = Timing(given.rounds or (5 if given.quick else 60), 0.5 if given.quick else 3.0, given.clock)
    whats = given.what or WHATS
    names = given.only or (QUICK_CASES if given.quick else tuple(KINDS))
    measured = [measure(name, whats, timing) for name in names] if set(whats) - {"callbacks"} else []
    overhead: dict[str, dict[str, Overhead]] = {}
    empty = 0.0
    if "callbacks" in whats:
        lengths, rounds = (dict.fromkeys(RECIPES, 110), 1) if given.quick else (LENGTHS, 3)
        empty = empty_hooks("feedforward", 300)
        for recipe in QUICK_RECIPES if given.quick else RECIPES:
            overhead[recipe] = overheads(recipe, lengths[recipe], rounds if recipe != "transformer" else 1)
            for callback, o in overhead[recipe].items():
                say(f"{recipe}: {callback} adds {o.by_parts:.2%} by parts, {o.cpu:.2%} of CPU time")
    settings = ["python", "-m", "tests.benchmarks", *(sys.argv[1:] if argv is None else argv)]
    text = page(shlex.join(settings), timing, measured, overhead, empty)
    whole = not (given.only or given.what or given.quick)
    out = given.out or (PAGE if whole else None)
    if out is None:
        say("\n" + text)
    else:
        out.write_text(text, encoding="utf-8")
        say(f"\nWritten: {out}")


if __name__ == "__main__":
    main()
