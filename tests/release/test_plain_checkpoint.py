"""A checkpoint of a fit with our callbacks is used where gaugefix cannot be imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.release import plain_checkpoint

PROGRAM = Path(plain_checkpoint.__file__)
WITHOUT_GAUGEFIX = """
import runpy, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "gaugefix":
            raise ModuleNotFoundError("No module named 'gaugefix'", name=name)

sys.meta_path.insert(0, Refuse())
script, sys.argv = sys.argv[1], sys.argv[1:]
runpy.run_path(script, run_name="__main__")
"""


def run(folder, *words):
    done = subprocess.run([sys.executable, "-I", *words, str(folder)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_checkpoint_needs_no_gaugefix(tmp_path):
    written = run(tmp_path, str(PROGRAM), "write")
    assert written == {"steps": 12, "projections": 4}
    report = run(tmp_path, "-c", WITHOUT_GAUGEFIX, str(PROGRAM), "read")
    assert len(report["keys"]) == 3
    assert report["left"] == []  # Lightning drops the state of a callback that is not there
    (said,) = report["said"]
    assert "Please add the following callbacks" in said
    assert all(key in said for key in report["keys"])


def test_the_reader_notices_gaugefix():
    with pytest.raises(AssertionError, match="Expected an environment without gaugefix"):
        plain_checkpoint.refuse_gaugefix()
