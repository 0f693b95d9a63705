"""LightningCLI as every recipe uses it: a directory for each run, plain result files, W&B by a flag."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse.typing import PositiveFloat, PositiveInt
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar, RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from gaugefix.callbacks import GaugeProjection, GaugeRegularizer
from gaugefix.demo.extras import require
from gaugefix.demo.jsonl_logger import JsonlLogger
from gaugefix.demo.methods import START, UNBALANCED_LOG_STD, check_base, parse_method, with_method
from gaugefix.demo.picture import draw
from gaugefix.demo.quiet import quiet
from gaugefix.demo.run_directory import new_run_directory
from gaugefix.demo.run_summary import RunSummary
from gaugefix.demo.run_table import print_runs
from gaugefix.demo.wandb_sink import wandb_logger
from gaugefix.errors import GaugeError

RUN_DIRECTORY = "GAUGEFIX_RUN_DIRECTORY"  # tells the processes that Lightning starts for other devices


class RecipeCLI(LightningCLI):
    """Runs in ``<out>/<recipe>/<time>-<method>-s<seed>/``, and prints that path last.

    The directory holds config.yaml, metrics.jsonl, summary.json, checkpoints/ and picture.png. The method is read off
    the configuration: the slice of a GaugeProjection, weight_decay, or baseline. ``--method`` and ``--start`` are short
    for callbacks and options of the model; config.yaml holds what they stand for. Checkpoint and summary keep the best
    value of the metric that the model names as its ``monitor``, in the direction of its ``monitor_mode``.

    Args:
        recipe: its name.
        model_class: base class of the models that can be chosen.
        datamodule_class: the data, or the base class of those that can be chosen.
        args: command line, for tests; ``sys.argv`` by default.
        subclass_mode_data: whether the data can be chosen, by ``data.class_path``.
    """

    def __init__(
        self,
        recipe: str,
        model_class: type[LightningModule],
        datamodule_class: type[LightningDataModule],
        args: list[str] | None = None,
        subclass_mode_data: bool = False,
    ) -> None:
        self.recipe = recipe
        self.directory = Path()
        self.given_directory: str | None = None
        quiet()
        super().__init__(
            model_class,
            datamodule_class,
            subclass_mode_model=True,
            subclass_mode_data=subclass_mode_data,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            args=args,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--out", type=str, default="runs", help="Directory for the results of all recipes.")
        parser.add_argument("--threads", type=PositiveInt, default=1, help="CPU threads that torch uses.")
        parser.add_argument("--picture", type=bool, default=True, help="Draw loss and drift into picture.png.")
        parser.add_argument(
            "--wandb",
            type=Literal["disabled", "offline", "online"],
            default="disabled",
            help="Send the results to Weights & Biases too. offline needs no account; upload later by 'wandb sync'.",
        )

        parser.add_argument(
            "--method",
            type=str | None,
            default=None,
            help="What fixes the gauge, on top of a baseline's configuration: name[:strength][@every_n_steps], several "
            "joined by +, such as minimal_norm@100+weight_decay:1e-3.",
        )
        parser.add_argument(
            "--start",
            type=Literal["balanced", "unbalanced"] | None,
            default=None,
            help="unbalanced: the same function, from parameters far from every slice.",
        )
        parser.add_argument(
            "--log_std",
            type=PositiveFloat,
            default=UNBALANCED_LOG_STD,
            help="How far: the standard deviation of log λ of an unbalanced start.",
        )
        parser.add_argument("--label", type=str | None, default=None, help="What to call the method in the results.")
        parser.add_argument(
            "--directory", type=str | None, default=None, help="Of this run alone, instead of a new one below --out."
        )
        parser.add_argument("--quiet", type=bool, default=False, help="Print nothing at the end.")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; then once more with what ``--method`` and ``--start`` stand for."""
        super().parse_arguments(parser, args)
        try:
            more = self.meant(self.config[self.config["subcommand"]])
        except GaugeError as error:
            parser.error(" ".join(str(error).split()))
        if more:
            super().parse_arguments(parser, [*(sys.argv[1:] if args is None else args), *more])

    def meant(self, chosen: Any) -> list[str]:
        """Return the options that ``--method`` and ``--start`` stand for."""
        label, start = chosen.get("method"), chosen.get("start")
        if label is None and start is None:
            return []
        method = None if label is None else parse_method(label, self.recipe)
        found = [callback.as_dict() for callback in as_list(chosen.get("trainer.callbacks"))]
        if method is not None:
            check_base((callback["class_path"] for callback in found), "--method")
        callbacks = with_method(method, start, found, seed_of(chosen.get("seed_everything")), chosen["log_std"])
        named = [] if label is None or chosen.get("label") is not None else [f"--label={label}"]
        options = [f"--{option}={value}" for option, value in (method.options if method else ())]
        return [*options, *named, "--method=null", "--start=null", f"--trainer.callbacks={json.dumps(callbacks)}"]

    def before_instantiate_classes(self) -> None:
        """Set the number of threads before anything is computed."""
        torch.set_num_threads(self._get(self.config, "threads"))
        if self.subcommand == "fit":
            self.given_directory = self._get(self.config, "directory")
            self.config["fit"]["directory"] = None  # config.yaml can be run again

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        chosen = self._get(self.config_init, "trainer")
        callbacks: list[Callback] = as_list(chosen.get("callbacks"))
        if self.subcommand != "fit" or chosen.get("fast_dev_run"):
            self.save_config_callback = None  # a run that trains nothing leaves nothing behind
            return super().instantiate_trainer(**{"logger": chosen.get("logger") or False, **kwargs})
        if self._get(self.config, "picture"):
            require("matplotlib", "--picture true")  # now, and not after the training
        settings = self.settings(callbacks)
        name = f"{settings['method']}-s{settings['seed']}"
        out = self._get(self.config, "out")
        self.directory = (
            Path(self.given_directory) if self.given_directory else run_directory(Path(out) / self.recipe, name)
        )
        loggers: list[Logger] = [JsonlLogger(self.directory)]
        sink = self._get(self.config, "wandb")
        if sink != "disabled":
            group = f"{self.recipe}/{settings['method']}"
            loggers.append(wandb_logger(sink, self.directory, name=name, group=group))
        given = chosen.get("logger")
        loggers += [] if given is None or isinstance(given, bool) else as_list(given)
        monitor: str = getattr(self.model, "monitor", "val/loss")
        mode: Literal["max", "min"] = getattr(self.model, "monitor_mode", "min")
        saving = chosen.get("enable_checkpointing") is not False
        if saving and not any(isinstance(callback, ModelCheckpoint) for callback in callbacks):
            checkpoints = self.directory / "checkpoints"
            callbacks.append(ModelCheckpoint(checkpoints, "best", monitor=monitor, mode=mode, save_last=True))
        if chosen.get("enable_progress_bar") is not False and not any(isinstance(c, ProgressBar) for c in callbacks):
            theme = RichProgressBarTheme(metrics_format=".3g")  # a drift of 2e-6 is not 0.000
            callbacks.append(RichProgressBar(theme=theme))
        callbacks.append(RunSummary(settings, monitor, mode))
        return super().instantiate_trainer(
            **{"logger": loggers, "callbacks": callbacks, "default_root_dir": str(self.directory), **kwargs}
        )

    def settings(self, callbacks: list[Callback]) -> dict[str, Any]:
        """Return what is run as flat keys."""
        model = self.model
        projection = next((c for c in callbacks if isinstance(c, GaugeProjection)), None)
        strengths = self.strengths(callbacks)
        return {
            "recipe": self.recipe,
            "method": self._get(self.config, "label")
            or self.prefix() + ("+".join(self.parts(callbacks)) or "baseline"),
            "model": type(model).__name__,
            "slice": projection.slice if projection else None,
            "regularizer": next(iter(strengths), None),  # of several the first
            "strength": next(iter(strengths.values()), None),
            "start": "unbalanced"
            if any(type(c).__name__ == START.rsplit(".", 1)[1] for c in callbacks)
            else "balanced",
            "seed": self._get(self.config, "seed_everything"),
            "lr": getattr(model, "lr", None),
            "precision": self._get(self.config_init, "trainer").get("precision"),
        }

    def prefix(self) -> str:
        """Return what stands before the method's name, where one recipe has several networks."""
        return getattr(self.model, "method_prefix", "")

    def parts(self, callbacks: list[Callback]) -> list[str]:
        """Return the names that the method's name is made of; none for the baseline."""
        slices = [callback.slice for callback in callbacks if isinstance(callback, GaugeProjection)][:1]
        return slices + list(self.strengths(callbacks))

    def strengths(self, callbacks: list[Callback]) -> dict[str, float]:
        """Return the strength of each regularizer, by name."""
        terms = {callback.term: callback.strength for callback in callbacks if isinstance(callback, GaugeRegularizer)}
        decay = float(getattr(self.model, "weight_decay", 0.0))
        return terms | ({"weight_decay": decay} if decay else {})

    def after_fit(self) -> None:
        """Print the headline numbers, and the path last."""
        self.report()

    @rank_zero_only
    def report(self) -> None:
        """Print the headline numbers, and the path last."""
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            print("fast_dev_run: nothing was written.")
            return
        summary = next(c for c in self.trainer.callbacks if isinstance(c, RunSummary))  # type: ignore[attr-defined]
        for logger in self.trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.finish()  # now, and not behind the last line
        if self._get(self.config, "quiet"):
            return
        self.comment()
        method = summary.settings["method"]
        print_runs({method: summary.values})
        if self._get(self.config, "picture"):
            title = f"{self.recipe}, seed {summary.settings['seed']}: loss and distance to the slice"
            print(f"\nPicture: {draw({method: self.directory}, self.directory / 'picture.png', title)}")
        print(self.directory)

    def comment(self) -> None:
        """Print what a recipe has to say about its result, above the table."""


def as_list(value: Any) -> list[Any]:
    """Return a list of what a configuration gives as one, several or none."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def seed_of(given: Any) -> int:
    """Return the seed of a configuration; 0 where Lightning chooses one itself."""
    return given if isinstance(given, int) and not isinstance(given, bool) else 0


def run_directory(parent: Path, name: str) -> Path:
    """Make a directory in the first process; take the same one in those that Lightning starts for other devices."""
    if int(os.environ.get("LOCAL_RANK", "0")) and RUN_DIRECTORY in os.environ:
        return Path(os.environ[RUN_DIRECTORY])
    path = new_run_directory(parent, name)
    os.environ[RUN_DIRECTORY] = str(path)
    return path
