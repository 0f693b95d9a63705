"""Small comparisons of real runs, made once."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from recipes import feedforward, neural_ode
from tests.recipes.runs import ROOT

STEPS = 44
METHODS = ("baseline", "minimal_norm")
LRS = ("0.02", "1e6")  # the second is too large for any of them
SEEDS = (0, 1)
STARTS = ("balanced", "unbalanced")
UNBALANCED = ["--trainer.callbacks+=gaugefix.demo.unbalanced_start.UnbalancedStart", "--trainer.callbacks.log_std=1.0"]
LEFT_BEHIND = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "GAUGEFIX_RUN_DIRECTORY")


def run(recipe, name: str, out: Path, *more: str) -> Path:
    """Train once by a configuration of a recipe and return the directory."""
    before = {key: os.environ.pop(key, None) for key in LEFT_BEHIND}
    config = ROOT / "configs" / recipe.__name__.split(".")[-1] / f"{name}.yaml"
    short = ["--picture=false", "--trainer.enable_progress_bar=false", "--trainer.enable_checkpointing=false"]
    directory = recipe.main(["fit", f"--config={config}", f"--out={out}", *short, *more]).directory
    for key in LEFT_BEHIND:
        os.environ.pop(key, None)
        if before[key] is not None:
            os.environ[key] = before[key]
    return directory


@pytest.fixture(scope="session")
def grid(tmp_path_factory) -> Path:
    """Two methods, two learning rates, two seeds, two starts, as ``gaugefix compare`` lays them out."""
    out = tmp_path_factory.mktemp("compare")
    config = yaml.safe_load((ROOT / "configs" / "feedforward" / "minimal_norm.yaml").read_text())
    assert config["trainer"]["callbacks"][0]["class_path"] == "gaugefix.GaugeProjection"
    for start in STARTS:
        for method in METHODS:
            for lr in LRS:
                for seed in SEEDS:
                    settings = [f"--model.lr={lr}", "--model.widths=[32,32]", f"--trainer.max_steps={STEPS}"]
                    more = [*settings, f"--seed_everything={seed}", *(UNBALANCED if start == "unbalanced" else [])]
                    done = run(feedforward, method, out / "made", *more)
                    summary = json.loads((done / "summary.json").read_text()) | {"start": start}
                    (done / "summary.json").write_text(json.dumps(summary))
                    place = out / "grid" / "runs" / f"{method}-lr{lr}-{start}-s{seed}"
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.move(done, place)
    described = {
        "version": 1,
        "recipe": "feedforward",
        "command": "gaugefix compare feedforward --methods baseline,minimal_norm --lrs 0.02,30 --seeds 2",
        "methods": list(METHODS),
        "lrs": [float(lr) for lr in LRS],
        "seeds": list(SEEDS),
        "starts": list(STARTS),
        "max_steps": STEPS,
        "monitor": "val/acc",
        "monitor_mode": "max",
        "environment": {"python": "3.11"},
    }
    (out / "grid" / "grid.json").write_text(json.dumps(described))
    return out / "grid"


@pytest.fixture
def own_grid(grid, tmp_path) -> Path:
    """A copy of the comparison to spoil."""
    return Path(shutil.copytree(grid, tmp_path / "grid"))


@pytest.fixture(scope="session")
def plain_runs(tmp_path_factory) -> Path:
    """Two ordinary runs of the neural ODE recipe with one seed: no grid.json, no start."""
    out = tmp_path_factory.mktemp("runs")
    for name in ("baseline", "kinetic"):
        run(neural_ode, name, out, "--trainer.max_steps=22", "--model.hidden=8", "--model.solver_steps=2")
    return out / "neural_ode"


@pytest.fixture(scope="session")
def report(grid) -> Path:
    """report.html of the comparison."""
    from gaugefix.compare.report import write_report

    return write_report(grid)
