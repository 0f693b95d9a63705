"""A run that was killed and resumed ends bit for bit where an uninterrupted one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "killed_runs.py"
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("strategy", "optimizers", "ended"),
    [("one", ["SGD", "AdamW", "Muon"], 9), ("ddp_fork", ["SGD", "AdamW", "Muon"], "ProcessExitedException")],
)
def test_a_killed_run_resumes_bit_for_bit(tmp_path, strategy, optimizers, ended):
    command = [sys.executable, "-W", "ignore", str(PROGRAM), str(tmp_path), strategy, *optimizers]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    report = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("REPORT "))[7:])
    assert sorted(report) == sorted(optimizers)
    for found in report.values():
        assert found["ended"] == ended
        assert found["left"] == ["step=3.ckpt", "step=6.ckpt"]
        assert found["tensors"]
        assert found["history"]
        assert found["projections"] == 4
        assert found["drift"]
        assert found["logs"]
        assert found["rows"] == 14
