"""The callbacks work in Trainers and command lines of lightning and of the standalone pytorch_lightning."""

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

from gaugefix import GaugeProjection
from gaugefix.callbacks import adopt
from gaugefix.callbacks.lightning_callback import LightningCallback

PROGRAM = Path(__file__).parent / "any_cli.py"
QUIET = ["--trainer.accelerator=cpu", "--trainer.logger=false", "--trainer.enable_checkpointing=false"]
QUIET += ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.max_steps=20"]
YAML = """
trainer:
  callbacks:
    - class_path: gaugefix.GaugeProjection
      init_args: {slice: unit_norm, every_n_steps: 5, dyadic: true, unknown_optimizer: reset}
"""


def run(*arguments, cwd):
    command = [sys.executable, "-W", "ignore", str(PROGRAM), *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_anybodys_command_line(package, tmp_path):
    (tmp_path / "config.yaml").write_text(YAML)
    drift = ["--trainer.callbacks+=gaugefix.OrbitDrift", "--trainer.callbacks.every_n_steps=4"]
    projection = ["--trainer.callbacks+=gaugefix.GaugeProjection", "--trainer.callbacks.every_n_steps=10"]
    if package == "lightning.pytorch":
        report = run(package, "fit", *QUIET, *drift, *projection, cwd=tmp_path)
        every, history = 10, [1, 10, 20]
    else:
        report = run(package, "fit", *QUIET, "--config=config.yaml", *drift, cwd=tmp_path)
        every, history = 5, [1, 5, 10, 15, 20]
    ours = report["callbacks"]
    assert ours["GaugeProjection"] == {"every_n_steps": every, "steps": 20, "history": history, "is one": True}
    assert ours["OrbitDrift"] == {"every_n_steps": 4, "steps": 20, "history": [], "is one": True}
    assert report["imported"] == [package]  # and the other one is left alone


def test_a_package_that_is_imported_later_is_adopted(monkeypatch):
    class Callback:
        """As of a package that is imported after gaugefix.callbacks."""

    before = LightningCallback.__bases__
    monkeypatch.setitem(sys.modules, "pytorch_lightning", types.SimpleNamespace(Callback=Callback))
    assert not issubclass(GaugeProjection, Callback)
    try:
        adopt()
        assert issubclass(GaugeProjection, Callback)
        assert LightningCallback.__bases__ == (*before, Callback)
        adopt()
        assert LightningCallback.__bases__ == (*before, Callback)
        assert isinstance(GaugeProjection(), Callback)
    finally:
        LightningCallback.__bases__ = before


def test_importing_gaugefix_waits_for_neither():
    program = (
        "import sys, gaugefix; gaugefix.act_; print('lightning' in sys.modules, 'pytorch_lightning' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
