"""The runs of a comparison: methods × learning rates × starts × seeds, on one configuration of one recipe."""

from __future__ import annotations

import hashlib
import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaugefix.demo.catalogue import checkout
from gaugefix.demo.extras import require
from gaugefix.demo.methods import Method, parse_method
from gaugefix.errors import GaugeError, did_you_mean

STARTS = ("balanced", "unbalanced")
DEFAULT_METHODS = ("baseline", "weight_decay", "minimal_norm", "unit_norm")
OWN_OPTION = {
    "method": "--methods",
    "label": "--methods",
    "model.lr": "--lrs",
    "model.init_args.lr": "--lrs",
    "seed_everything": "--seeds",
    "start": "--start",
    "trainer.max_steps": "--max-steps",
    "directory": "--out",
    "out": "--out",
    "wandb": "--wandb",
    "config": "--config",
}
"""Options of a recipe that a comparison sets itself → its own option for them."""


class GridError(GaugeError, ValueError):
    """A comparison that cannot be run as it was described."""


@dataclass(frozen=True)
class Variant:
    """A method, with what else sets it apart.

    Attributes:
        label: its name in every result.
        method: what fixes the gauge.
        settings: options of the recipe, ``key=value``.
    """

    label: str
    method: Method
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedRun:
    """One run of a comparison."""

    variant: Variant
    lr: float | None
    start: str
    seed: int

    @property
    def name(self) -> str:
        """Of its directory; ``:`` and ``/`` are no characters for a file everywhere."""
        label = self.variant.label.replace(":", "=").replace("/", "_")
        rate = "" if self.lr is None else f"-lr{self.lr:g}"
        return f"{label}{rate}-{self.start}-s{self.seed}"


@dataclass(frozen=True)
class Grid:
    """A comparison.

    Attributes:
        recipe: its name.
        script: its file.
        config: the configuration on top of which every method is put.
        variants: the methods.
        lrs: learning rates; empty for a model that has none.
        seeds: of everything random.
        starts: balanced, unbalanced or both.
        max_steps: optimizer steps of every run; None for as many as the configuration says.
        settings: further options of every run, ``key=value``.
        wandb: disabled, offline or online.
    """

    recipe: str
    script: Path
    config: Path
    variants: tuple[Variant, ...]
    lrs: tuple[float, ...]
    seeds: tuple[int, ...]
    starts: tuple[str, ...]
    max_steps: int | None = None
    settings: tuple[str, ...] = ()
    wandb: str = "disabled"

    @property
    def runs(self) -> tuple[PlannedRun, ...]:
        """All runs; one seed after the other, so that a grid that was stopped can be compared already."""
        return tuple(
            PlannedRun(variant, lr, start, seed)
            for seed in self.seeds
            for start in self.starts
            for lr in (self.lrs or (None,))
            for variant in self.variants
        )

    def arguments(self, run: PlannedRun, directory: Path) -> list[str]:
        """Return the command line of the recipe for a run.

        Args:
            run: one of :attr:`runs`.
            directory: where its results go.
        """
        rate = [] if run.lr is None else [f"--model.lr={run.lr!r}"]
        return [
            *("fit", "--config", str(self.config)),
            *(f"--{setting}" for setting in (*self.settings, *run.variant.settings)),
            *rate,
            *length(self.max_steps, read_config(self.config)),
            f"--seed_everything={run.seed}",
            f"--method={run.variant.method.label}",
            f"--label={run.variant.label}",
            f"--start={run.start}",
            f"--directory={directory}",
            f"--wandb={self.wandb}",
            "--picture=false",
            "--quiet=true",
            "--trainer.enable_progress_bar=false",
            "--trainer.enable_checkpointing=false",
        ]

    @property
    def monitor(self) -> tuple[str, str]:
        """The metric whose best value counts, and max or min."""
        path = next(
            (s.partition("=")[2] for s in self.settings if s.startswith(("model=", "model.class_path="))),
            read_config(self.config)["model"]["class_path"],
        )
        module, _, name = path.rpartition(".")
        try:
            model = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise GridError(
                f"Expected a class that can be imported for model.class_path, got '{path}'. Give it with its module, "
                "such as gaugefix.demo.mlp.MLP."
            ) from error
        return getattr(model, "monitor", "val/loss"), getattr(model, "monitor_mode", "min")

    @property
    def fingerprint(self) -> str:
        """A hash of the configuration's content."""
        return hashlib.sha256(self.config.read_bytes()).hexdigest()[:16]


def make_grid(
    recipe: str,
    methods: tuple[str, ...] = DEFAULT_METHODS,
    lrs: tuple[float, ...] = (),
    seeds: tuple[int, ...] = (0, 1, 2),
    starts: tuple[str, ...] = STARTS[:1],
    max_steps: int | None = None,
    config: str | None = None,
    settings: tuple[str, ...] = (),
    axes: Mapping[str, tuple[Any, ...]] | None = None,
    wandb: str = "disabled",
) -> Grid:
    """Check a description, and return its grid.

    Args:
        recipe: name of a recipe that has a baseline's configuration.
        methods: labels (see :mod:`gaugefix.demo.methods`).
        lrs: learning rates; that of the configuration by default.
        seeds: of everything random.
        starts: of :data:`STARTS`.
        max_steps: optimizer steps of every run.
        config: a configuration; ``configs/<recipe>/baseline.yaml`` by default.
        settings: options of every run, ``key=value``.
        axes: further options of the recipe with several values each; every method is run with each of them.
        wandb: disabled, offline or online.

    Raises:
        GridError: for an unknown recipe, a method that is named twice, or a setting that has an option of its own.
        MethodError: for an unknown method.
    """
    root = checkout()
    known = {path.parent.name for path in (root / "configs").glob("*/baseline.yaml")}
    if recipe not in known:
        raise GridError(f"Expected the name of a recipe to compare on, got '{recipe}'. {did_you_mean(recipe, known)}")
    path = Path(config) if config else root / "configs" / recipe / "baseline.yaml"
    if not path.is_file():
        raise GridError(f"Expected a file for --config, got '{path}'. {config_hint(root, recipe)}")
    for setting in settings:
        check_setting(setting)
    parsed = [parse_method(label, recipe) for label in methods]
    for k, method in enumerate(parsed):
        same = next((m for m in parsed[:k] if (m.options, m.callbacks) == (method.options, method.callbacks)), None)
        if same:
            raise GridError(
                f"Expected each method once for --methods, got '{same.label}' and '{method.label}', which are the "
                "same. Leave one out."
            )
    variants = [Variant(method.label, method) for method in parsed]
    for key, values in (axes or {}).items():
        short = key.rsplit(".", 1)[-1]
        variants = [
            Variant(f"{v.label}+{short}={value}", v.method, (*v.settings, f"{key}={value}"))
            for v in variants
            for value in values
        ]
    rate = read_config(path).get("model", {}).get("init_args", {}).get("lr")
    rates = lrs or (() if rate is None else (float(rate),))
    return Grid(recipe, root / "recipes" / f"{recipe}.py", path, tuple(variants), rates, seeds, starts, max_steps,
                settings, wandb)  # fmt: skip


def check_setting(setting: str) -> None:
    """Refuse what is no ``key=value``, or has an option of its own.

    Raises:
        GridError: for a setting of that kind.
    """
    key, equals, _ = setting.partition("=")
    key = key.removeprefix("--")
    if not (key and equals) or setting.startswith("-"):
        raise GridError(f"Expected key=value for --set, got '{setting}'. Write it like --set model.momentum=0.5.")
    if key in OWN_OPTION:
        raise GridError(f"Expected another key for --set, got '{key}'. It has an option of its own: {OWN_OPTION[key]}.")


def length(max_steps: int | None, config: Mapping[str, Any]) -> list[str]:
    """Return the options that make a run so many steps long, with a validation behind the last.

    There are about forty validations, or as many as the configuration's ``val_check_interval`` gives.
    """
    if max_steps is None:
        return []
    own = config.get("trainer", {}).get("val_check_interval")
    about = own if isinstance(own, int) else max(math.ceil(max_steps / 40), min(max_steps, 20))
    interval = next(k for k in range(min(about, max_steps), max_steps + 1) if max_steps % k == 0)
    return [
        f"--trainer.max_steps={max_steps}",
        "--trainer.max_epochs=-1",
        f"--trainer.val_check_interval={interval}",
        "--trainer.check_val_every_n_epoch=null",
    ]


def read_config(path: Path) -> dict[str, Any]:
    """Return a configuration.

    Raises:
        GridError: if it is not YAML with a model.
    """
    yaml = require("pyyaml", "gaugefix compare")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise GridError(f"Expected YAML for '{path}', got {' '.join(str(error).split())}. Mend the file.") from error
    if not isinstance(found, dict) or not isinstance(found.get("model"), dict) or "class_path" not in found["model"]:
        raise GridError(f"Expected a configuration with model.class_path for '{path}', got none. Take one of configs/.")
    return found


def config_hint(root: Path, recipe: str) -> str:
    """Return which configurations a recipe has."""
    names = sorted(f"configs/{recipe}/{path.name}" for path in (root / "configs" / recipe).glob("*.yaml"))
    return f"Available: {', '.join(names)}."
