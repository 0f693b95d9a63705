"""The sweep files work with W&B's own commands, as they stand."""

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from itertools import product
from pathlib import Path

import pytest
import yaml

from gaugefix.demo.methods import parse_method
from tests.recipes.runs import ROOT

SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A directory where a sweep can be started, whose runs/ is thrown away; its python3 is this one."""
    for name in ("recipes", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    return tmp_path


def wandb_command(*words, cwd):
    done = subprocess.run(["wandb", *words], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def make(sweep, cwd):
    """Make a sweep, and return the words behind 'wandb' in the command that it names."""
    said = wandb_command("sweep", str(sweep), cwd=cwd)
    return re.search(r"Run sweep agent with: .*?wandb (agent \S+?)(?:\x1b|\s)", said)[1].split()


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_file_is_a_grid_that_its_recipe_understands(path, tmp_path, nobody, monkeypatch):
    sweep = yaml.safe_load(path.read_text())
    axes = sweep["parameters"]
    assert sweep["method"] == "grid"
    assert sweep["program"] == f"recipes/{path.stem}.py"
    assert set(axes) == {"method", "model.lr", "seed_everything"}
    for label in axes["method"]["values"]:
        assert parse_method(label, path.stem).label == label
    assert "baseline" in axes["method"]["values"]
    assert len(axes["seed_everything"]["values"]) >= 3

    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    command = sweep["command"]
    assert command[:2] == ["python3", "${program}"]
    assert command[-1] == "${args}"
    words = [word for word in command[2:-1] if word not in ("--wandb", "online")]
    arguments = [f"--{key}={axis['values'][-1]}" for key, axis in axes.items()]
    import_module(f"recipes.{path.stem}").main([*words, *arguments, "--trainer.fast_dev_run=true"])


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_file_has_its_launch_line_on_top_and_a_comment_on_every_key(path):
    lines = path.read_text().splitlines()
    assert lines[0] == f"# wandb sweep configs/sweeps/{path.name}"
    keyed = [k for k, line in enumerate(lines) if re.match(r"\s*[\w.]+:", line) and "values:" not in line]
    assert len(keyed) >= 9
    assert not [lines[k] for k in keyed if not lines[k - 1].lstrip().startswith("#") and lines[k] != "parameters:"]
    axes = yaml.safe_load(path.read_text())["parameters"]
    runs = len(list(product(*(axis["values"] for axis in axes.values()))))
    assert re.match(rf"# {runs} runs of about \d+ s on two cores\.$", lines[4])


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_wandb_sweep_takes_the_file_as_it_stands(path, backend, checkout):
    command = make(path, checkout)
    (sweep,) = backend.sweeps.values()
    assert command == ["agent", f"somebody/gaugefix/{sweep.id}"]
    assert sweep.config == yaml.safe_load(path.read_text())


def assert_agent_runs(path, backend, checkout):
    said = wandb_command(*make(path, checkout), "--count", "1", cwd=checkout)
    (sweep,) = backend.sweeps.values()
    assert len(backend.runs) == 1, said
    (run,) = backend.runs.values()
    axes = sweep.config["parameters"]
    method, lr, seed = (axes[key]["values"][0] for key in ("method", "model.lr", "seed_everything"))
    assert (run.project, run.sweep, run.exit_code) == ("gaugefix", sweep.id, 0)
    assert (run.group, run.name) == (f"feedforward/{method}", f"{method}-s{seed}")
    assert run.config.items() >= {"recipe": "feedforward", "method": method, "lr": lr, "seed": seed}.items()
    assert run.summary[sweep.config["metric"]["name"]] > 0
    (directory,) = (checkout / "runs" / "feedforward").iterdir()
    assert run.summary["steps"] == json.loads((directory / "summary.json").read_text())["steps"]
    return run


def test_an_agent_runs_what_the_sweep_asks_for(backend, checkout):
    sweep = yaml.safe_load((ROOT / "configs" / "sweeps" / "feedforward.yaml").read_text())
    sweep["command"][-1:] = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=12", "${args}"]
    sweep["parameters"]["method"]["values"] = ["minimal_norm@5", "baseline"]
    (checkout / "short.yaml").write_text(yaml.safe_dump(sweep))
    run = assert_agent_runs("short.yaml", backend, checkout)
    assert (run.summary["steps"], run.summary["projections"]) == (24, 5)


@pytest.mark.slow
def test_an_agent_runs_the_file_as_it_stands(backend, checkout):
    run = assert_agent_runs("configs/sweeps/feedforward.yaml", backend, checkout)
    assert run.summary["val_acc_best"] > 0.9
