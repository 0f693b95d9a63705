"""What the tests of the recipes ask of every run and of every configuration."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def configs_of(recipe: str) -> list[Path]:
    return sorted((ROOT / "configs" / recipe).glob("*.yaml"))


def read(directory: Path) -> tuple[dict, list[dict]]:
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return json.loads((directory / "summary.json").read_text()), rows


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def assert_explained(config: Path, best: str) -> None:
    """The launch line is on top, the expected result below it, and every key has a comment above it."""
    recipe = config.parent.name
    lines = config.read_text().splitlines()
    assert lines[0] == f"# python recipes/{recipe}.py fit --config configs/{recipe}/{config.name}"
    assert re.match(rf"# Expected: {best} \d\.\d+.*; about \d+ s on two cores\.$", lines[3])
    keyed = [k for k, line in enumerate(lines) if re.match(r"\s*(- )?\w+: *\S", line) and not line.startswith("#")]
    assert len(keyed) > 15
    assert not [lines[k] for k in keyed if not lines[k - 1].lstrip().startswith("#")]
