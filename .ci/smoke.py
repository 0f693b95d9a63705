"""Is the installed package whole, does it work without the extras, and does it say what is missing?

python -I .ci/smoke.py, in an environment that holds gaugefix and its own dependencies only, from any empty directory.
"""

import importlib
import importlib.metadata
import subprocess
import sys
import sysconfig
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gaugefix
from gaugefix.compare.report import resource

CHECKOUT = Path(__file__).resolve().parents[1]  # only to compare names of files; python -I keeps it off the path
COMMAND = Path(sysconfig.get_path("scripts")) / "gaugefix"


def check_files() -> None:
    """What is installed is what the checkout has in gaugefix/, and nothing else."""
    home = Path(gaugefix.__file__).resolve().parent
    assert home.is_relative_to(sys.prefix), f"gaugefix comes from {home}, not from {sys.prefix}"
    source = CHECKOUT / "gaugefix"
    expected = {path.relative_to(CHECKOUT).as_posix() for path in source.rglob("*") if path.is_file()}
    files = importlib.metadata.files("gaugefix")
    assert files
    found = {path.as_posix() for path in files if path.parts[0] != ".." and ".dist-info" not in path.parts[0]}
    compiled = {name for name in expected | found if "__pycache__" in name}
    assert found - compiled == expected - compiled, f"differ: {sorted((found ^ expected) - compiled)}"
    assert {"gaugefix/py.typed", "gaugefix/compare/page/page.html"} <= found
    for name, start in {"page.html": "<!DOCTYPE html>", "page.css": "", "page.js": ""}.items():
        assert resource(name).startswith(start)
        assert len(resource(name)) > 1000
    assert gaugefix.__version__ == importlib.metadata.version("gaugefix")


def check_imports() -> None:
    """Every public name, every room and every module is there; those of programs may ask for an extra."""
    for name in gaugefix.__all__:
        assert getattr(gaugefix, name) is not None
    for name in gaugefix._ROOMS:
        assert importlib.import_module(f"gaugefix.{name}").__doc__


def check_functions() -> None:
    """Discover, verify, project: the outputs stay, the gauge moves."""
    torch.manual_seed(0)
    first = nn.Linear(4, 16)
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        first.weight.mul_(10.0)
    x = torch.randn(32, 4)
    before = model(x).detach()
    gauge = gaugefix.discover(model, (x,))
    assert gauge.dimension == 24, gauge.dimension
    assert gaugefix.verify(model, gauge, (x,)).error < 1e-12
    assert gaugefix.drift(model, gauge).total > 1.0
    gaugefix.project_(model, gauge, "minimal_norm")
    assert gaugefix.drift(model, gauge).total < 1e-3
    change = float((model(x).detach() - before).norm() / before.norm())
    assert change < 24 * torch.finfo(x.dtype).eps, change


class Net(pl.LightningModule):
    """Anybody's module."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the loss."""
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def check_fit() -> None:
    """The callbacks work in a Trainer."""
    projection, drift = gaugefix.GaugeProjection(every_n_steps=5), gaugefix.OrbitDrift(every_n_steps=5)
    x = torch.randn(64, 4)
    trainer = pl.Trainer(
        max_steps=20, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[projection, drift],
    )  # fmt: skip
    trainer.fit(Net(), DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), 8))
    assert [entry["step"] for entry in projection.history] == [1, 5, 10, 15, 20]  # at the first step a batch is known
    assert drift.last is not None
    assert drift.last.total < 1e-3, drift.last.total


def run(line: str, status: int, *expected: str) -> None:
    """Run a command of ``gaugefix``; what goes wrong is one line."""
    done = subprocess.run([COMMAND, *line.split()], capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == status, f"gaugefix {line}: status {done.returncode}\n{said}"
    assert all(part in said for part in expected), f"gaugefix {line}: {said}"
    assert status != 2 or (said.count("\n") == 1 and said.startswith("gaugefix: Expected ")), said
    print(f"gaugefix {line}".ljust(40), "works" if status == 0 else said.strip())  # noqa: T201


def check_command() -> None:
    """What needs no extra works; what needs one names the command that installs it."""
    version = importlib.metadata.version("gaugefix")
    run("--help", 0, "usage: gaugefix", "doctor")
    run("--version", 0, version)
    run("doctor", 0, f"gaugefix {version}", "works;", 'For the recipes and the demo: pip install "')
    run("inspect mlp", 0, "1024 continuous redundant dimensions")
    run("demo", 2, "the package rich", 'Install it: pip install "rich>=')
    run("wandb-report x/y", 2, "wandb-workspaces", 'Install it: pip install "wandb>=')
    run("recipes", 2, "Expected a checkout of gaugefix", "start the command in a checkout")
    run("report nowhere", 2, "no such directory")


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    for check in (check_files, check_imports, check_functions, check_fit, check_command):
        check()
