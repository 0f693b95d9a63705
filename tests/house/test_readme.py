"""What the README, the changelog and the package's metadata promise together."""

import importlib.metadata
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = [
    'pip install -c constraints.txt -e ".[recipes]" && gaugefix demo',
    'pip install -c constraints.txt -e ".[test]" && pytest',
]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def declared_version() -> str:
    (version,) = re.findall(r'^version = "([^"]+)"$', read("pyproject.toml"), flags=re.MULTILINE)
    return version


def as_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_shows_the_command_on_a_line_of_its_own(command):
    lines = [line for block in code_blocks(read("README.md"), "bash") for line in block.splitlines()]
    assert command in lines


def test_ci_runs_the_readme_test_command():
    assert COMMANDS[1] in read(".ci/run")


def test_readme_python_runs():
    blocks = code_blocks(read("README.md"), "python")
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block.replace("Trainer(", "Trainer(accelerator='cpu', logger=False, "), "README.md", "exec"), {})


def test_readme_configurations_exist():
    named = re.findall(r"\b(?:recipes|configs)/[\w/]+\.(?:py|yaml)\b", read("README.md"))
    assert named
    assert not [name for name in named if not (ROOT / name).is_file()]


def test_readme_links_lead_somewhere():
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", read("README.md") + read("CONTRIBUTING.md"))
    assert targets
    assert not [target for target in targets if not (ROOT / target).exists()]


def test_installed_version_is_the_declared_one():
    assert importlib.metadata.version("gaugefix") == declared_version()


def test_changelog_knows_the_version():
    # Either the version has its section, or it comes after every release and its changes are still unreleased.
    changelog = read("CHANGELOG.md")
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}$", changelog, flags=re.MULTILINE)
    if declared_version() in released:
        return
    assert all(as_numbers(release) < as_numbers(declared_version()) for release in released)
    unreleased = changelog.split("## [Unreleased]")[1].split("\n## ")[0]
    assert "\n- " in unreleased, "Expected entries under Unreleased for a version that is not released."


def test_constraints_pin_what_the_package_depends_on():
    pinned = set(re.findall(r"^([a-z0-9-]+)==", read("constraints.txt"), flags=re.MULTILINE))
    required = importlib.metadata.requires("gaugefix")
    assert required
    names = {re.match(r"[A-Za-z0-9_.-]+", requirement)[0].lower() for requirement in required} - {"gaugefix"}
    assert not names - pinned
