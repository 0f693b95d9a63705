"""Two processes make the same projections, and add the same terms."""

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parent / "two_processes.py"


def test_processes_stay_equal():
    done = subprocess.run([sys.executable, "-W", "ignore", str(PROGRAM)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    report = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert report["difference"] == 0.0
    assert report["difference of states"] == 0.0
    assert report["rolled_back"] == 0
    assert [entry["step"] for entry in report["history"]] == [1, 3, 6]
    assert report["history"][0]["drift_before"] > 0.5
    assert max(entry["invariance_error"] for entry in report["history"]) <= 2.9e-6
    assert report["drift"] <= 1e-3
