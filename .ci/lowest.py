"""Print the oldest releases that pyproject.toml allows, as constraints for pip: what docs/evidence/versions.md tried.

python .ci/lowest.py > lowest.txt && pip install -c lowest.txt -e .          the library alone
python .ci/lowest.py test > lowest.txt && pip install -c lowest.txt -e ".[test]"
"""

import re
import sys
from pathlib import Path

import tomllib

REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?:\[(?P<extras>[\w,]+)\])?(?:>=(?P<least>[\d.]+))?")


def lowest(extras: list[str]) -> dict[str, str]:
    """Return package → oldest release, for the library with extras; the newest bound counts where several are given."""
    project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, str] = {}
    for line in project["dependencies"] + [line for e in extras for line in project["optional-dependencies"][e]]:
        read = REQUIREMENT.fullmatch(line)
        if read is None:
            raise SystemExit(f"Expected a requirement such as name>=1.0 in pyproject.toml, got '{line}'.")
        bounds = {read["name"]: read["least"]}
        if read["name"] == project["name"]:
            bounds = lowest(read["extras"].split(","))
        for name, least in bounds.items():
            found[name] = max(found.get(name, "0"), least, key=lambda version: [int(n) for n in version.split(".")])
    return found


if __name__ == "__main__":
    print("\n".join(f"{name}=={least}" for name, least in lowest(sys.argv[1:]).items()))  # noqa: T201
