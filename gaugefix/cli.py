"""The ``gaugefix`` command. Parsing imports neither torch nor Lightning, so ``--help`` and mistakes answer at once."""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import sys
from collections.abc import Sequence
from typing import NoReturn

from gaugefix.errors import GaugeError, did_you_mean

COMMANDS = {
    "demo": "train a small network twice, as it is and with its gauge fixed; table and picture",
    "inspect": "print the gauge table of a model",
    "compare": "run a recipe with several methods, learning rates and seeds; table and report",
    "report": "write the table and the report of runs that are there",
    "wandb-report": "write a report on W&B about runs that were sent there",
    "recipes": "list the recipes, their configurations and how to start them",
    "doctor": "check versions and optional packages",
}


class UsageError(GaugeError):
    """The command cannot be carried out as it was typed; the message is one line."""


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing its usage, so that a mistake gets one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message[:1].upper() + message[1:] + f". See '{self.prog} --help'.")


def positive_integer(text: str) -> int:
    """Return the number in ``text``, if it counts something."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got '{text}'")
    return int(text)


def seed(text: str) -> int:
    """Return the number in ``text``, if it can seed a generator."""
    if not text.isascii() or not text.isdigit() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"expected an integer from 0 to 2^32 - 1, got '{text}'")
    return int(text)


def names(text: str) -> tuple[str, ...]:
    """Return the parts of a list with commas."""
    found = tuple(part.strip() for part in text.split(","))
    if not all(found):
        raise argparse.ArgumentTypeError(f"expected names with commas between them, got '{text}'")
    return found


def rates(text: str) -> tuple[float, ...]:
    """Return the positive numbers of a list with commas, each once."""
    try:
        found = tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        found = (math.nan,)
    if not all(0 < rate < math.inf for rate in found):
        raise argparse.ArgumentTypeError(f"expected positive numbers with commas between them, got '{text}'")
    return found


def seeds(text: str) -> tuple[int, ...]:
    """Return the seeds 0, 1, … of a count, or those of a list with commas."""
    if "," in text:
        return tuple(dict.fromkeys(seed(part.strip()) for part in text.split(",") if part.strip()))
    return tuple(range(positive_integer(text)))


def starts(text: str) -> tuple[str, ...]:
    """Return the starts of balanced, unbalanced or both."""
    if text not in ("balanced", "unbalanced", "both"):
        raise argparse.ArgumentTypeError(f"expected balanced, unbalanced or both, got '{text}'")
    return ("balanced", "unbalanced") if text == "both" else (text,)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the command and its options.

    Raises:
        UsageError: for an unknown command or option, or a bad value; the message has the nearest name and the list.
    """
    parser = _Parser("gaugefix", description="Fix the gauge of a network while it trains.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"gaugefix {importlib.metadata.version('gaugefix')}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    command = {
        name: subparsers.add_parser(name, help=text, description=text[:1].upper() + text[1:] + ".", allow_abbrev=False)
        for name, text in COMMANDS.items()
    }
    demo = command["demo"]
    demo.add_argument("--steps", type=positive_integer, default=1500, help="optimizer steps of each run (%(default)s)")
    demo.add_argument("--seed", type=seed, default=0, help="of everything random (%(default)s)")
    demo.add_argument(
        "--out", metavar="DIR", default="runs", help="results go to DIR/demo/<time>-s<seed> (%(default)s)"
    )
    inspect = command["inspect"]
    inspect.add_argument(
        "model",
        help="mlp, residual_cnn, rotary_decoder, layernorm_decoder, or package.module:callable, where the callable "
        "takes no argument and returns (model, args) or (model, args, kwargs), or a LightningModule with an "
        "example_input_array",
    )
    inspect.add_argument("--verify", action="store_true", help="also prove the symmetries numerically, in float64")
    add_compare(command["compare"])
    command["report"].add_argument("directory", help="of a comparison, or of a recipe's runs, such as runs/feedforward")
    add_wandb_report(command["wandb-report"])
    command["recipes"].add_argument("name", nargs="?", help="of one recipe; all by default")

    typed = next((word for word in argv if not word.startswith("-")), None)
    if typed is not None and typed not in COMMANDS:
        raise UsageError(f"Expected a command for gaugefix, got '{typed}'. {did_you_mean(typed, COMMANDS)}")
    arguments, left = parser.parse_known_args(argv)
    if left:
        chosen = command.get(arguments.command, parser)
        known = [option for action in chosen._actions for option in action.option_strings if option.startswith("--")]
        raise UsageError(f"Expected an option of '{chosen.prog}', got '{left[0]}'. {did_you_mean(left[0], known)}")
    if arguments.command is None:
        parser.print_help()
    arguments.words = ["gaugefix", *argv]
    return arguments


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``gaugefix compare``."""
    add = parser.add_argument
    add("recipe", help="feedforward, neural_ode or transformer")
    add(
        "--methods",
        type=names,
        metavar="A,B,…",
        help="name[:strength][@every_n_steps], several joined by +: baseline, weight_decay, a slice (minimal_norm@1) "
        "or a term (charge:0.1; every 4 steps and 4 times as strong, if not said) "
        "(baseline,weight_decay,minimal_norm,unit_norm)",
    )
    add("--lrs", type=rates, metavar="A,B,…", help="learning rates (that of the configuration)")
    add("--seeds", type=seeds, metavar="N", help="number of seeds, or several with commas between them (3)")
    add("--start", type=starts, help="balanced, unbalanced or both (balanced)")
    add("--max-steps", type=positive_integer, metavar="N", help="optimizer steps of each run (as configured)")
    add("--out", metavar="DIR", help="of the comparison; what is finished there stays (runs/RECIPE/compare-<time>)")
    add("--wandb", choices=("disabled", "offline", "online"), default="disabled", help="also send to W&B (%(default)s)")
    add("--config", metavar="FILE", help="on top of which every method is put (configs/RECIPE/baseline.yaml)")
    add(
        "--sweep",
        metavar="FILE",
        help="a W&B sweep, for its methods, rates and seeds, such as configs/sweeps/RECIPE.yaml",
    )
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="an option of the recipe for every run")
    add(
        "--dry-run",
        action="store_true",
        help="print the runs, the gauge group and an estimate of the time; run nothing",
    )
    add("--jobs", type=positive_integer, metavar="N", help="runs at a time (cores - 1, at most 8)")


def add_wandb_report(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``gaugefix wandb-report``."""
    add = parser.add_argument
    add("project", help="project, or entity/project")
    add(
        "--group",
        action="append",
        default=[],
        metavar="GROUP",
        help="only these runs: a recipe, or recipe/method (several times if need be)",
    )
    add(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only runs with this setting, such as lr=0.03 (several times if need be)",
    )
    add("--title", help="of the report")


def run(arguments: argparse.Namespace) -> int:
    """Carry out a parsed command and return its exit status."""
    if arguments.command == "demo":
        from gaugefix.demo.experiment import run_demo

        run_demo(arguments.steps, arguments.seed, arguments.out)
    elif arguments.command == "inspect":
        from gaugefix.demo.inspection import inspect_model

        print(inspect_model(arguments.model, verify=arguments.verify))
    elif arguments.command == "compare":
        from gaugefix.compare.command import compare

        return compare(arguments)
    elif arguments.command == "report":
        from gaugefix.compare.report import write_report

        print(write_report(arguments.directory))
    elif arguments.command == "wandb-report":
        from gaugefix.compare.wandb_report import parse_where, write_wandb_report

        where = parse_where(arguments.where)
        print(write_wandb_report(arguments.project, arguments.group, where, arguments.title))
    elif arguments.command == "recipes":
        from gaugefix.demo.catalogue import catalogue

        print(catalogue(arguments.name))
    elif arguments.command == "doctor":
        from gaugefix.demo.doctor import examine

        healthy, report = examine()
        print(report)
        return 0 if healthy else 1
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 2 for what the caller can mend, with one line that says how."""
    try:
        return run(parse(sys.argv[1:] if argv is None else argv))
    except GaugeError as error:
        print("gaugefix: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gaugefix: stopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
