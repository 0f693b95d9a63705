"""The lower bounds that the package declares are those that were tried, and those that the README promises."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def bounds():
    """Package → lower bound of the library's own dependencies."""
    (block,) = re.findall(r"^dependencies = \[\n(.*?)^\]", read("pyproject.toml"), flags=re.MULTILINE | re.DOTALL)
    return dict(re.findall(r'^    "([a-z]+)>=([\d.]+)",', block, flags=re.MULTILINE))


def test_bounds_were_tried():
    page = read("docs/evidence/versions.md")
    assert set(bounds()) == {"torch", "lightning", "torchmetrics", "numpy", "scipy"}
    missing = [f"{name} {least}.0" for name, least in bounds().items() if f"{name} {least}.0" not in page]
    assert not missing, f"docs/evidence/versions.md does not say that these were tried: {missing}"


def test_readme_names_the_bounds():
    found = bounds()
    (python,) = re.findall(r'^requires-python = ">=([\d.]+)"', read("pyproject.toml"), flags=re.MULTILINE)
    sentence = f"Python {python} or newer, PyTorch {found['torch']} or newer, Lightning {found['lightning']} or newer."
    assert sentence in " ".join(read("README.md").split())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_lowest_prints_them():
    def lowest(*extras):
        command = [sys.executable, ".ci/lowest.py", *extras]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()

    assert lowest() == [f"{name}=={least}" for name, least in bounds().items()]
    of_tests = dict(line.split("==") for line in lowest("test"))
    assert of_tests["torch"] == bounds()["torch"]
    assert of_tests["lightning"] == of_tests["pytorch-lightning"] == "2.6"  # recipes need more than the library
    assert {"pytest", "wandb", "jsonargparse"} < set(of_tests)
