"""A comparison, and its page, on W&B."""

import re
import subprocess
import sys

import pytest

from tests.recipes.runs import ROOT

pytestmark = pytest.mark.slow


def compare(mode, out):
    command = [sys.executable, "-m", "gaugefix.cli", "compare", "feedforward", "--methods", "baseline,minimal_norm@5"]
    more = ["--lrs", "0.03", "--seeds", "1", "--max-steps", "24", "--jobs", "1", "--out", str(out), "--wandb", mode]
    done = subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_arrived(backend, out):
    runs = {run.group: run for run in backend.runs.values()}
    assert set(runs) == {"feedforward/baseline", "feedforward/minimal_norm@5", "feedforward/compare"}
    assert {run.exit_code for run in runs.values()} == {0}
    (page,) = [content for name, content in runs["feedforward/compare"].files.items() if name.endswith(".html")]
    assert page == (out / "report.html").read_bytes()
    assert runs["feedforward/minimal_norm@5"].summary["projections"] == 5
    assert runs["feedforward/baseline"].summary["steps"] == 24


def test_a_comparison_goes_online_with_its_page(backend, tmp_path):
    compare("online", tmp_path / "out")
    assert_arrived(backend, tmp_path / "out")


def test_a_comparison_kept_offline_arrives_when_uploaded(backend, tmp_path):
    said = compare("offline", tmp_path / "out")
    assert not backend.runs
    for command in re.findall(r"later: (wandb sync .*)", said):
        subprocess.run(command, shell=True, check=True, capture_output=True, cwd=tmp_path, timeout=60)
    assert_arrived(backend, tmp_path / "out")
