"""Imports flow one way (CONTRIBUTING.md): the rooms of gaugefix and what each must not know."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "gaugefix"
ROOT_ROOM = "gaugefix"  # gaugefix/__init__.py: the public API, which knows every room

# room -> the rooms that it may import (itself aside)
MAY_IMPORT = {
    "errors": set(),
    "groups": {"errors"},
    "ode": {"errors", "groups"},
    "symmetry": {"errors", "groups"},
}
# room -> the rooms that it must not import
MUST_NOT_IMPORT = {
    "discovery": {"slices", "transport", "functional", "metrics", "callbacks"},
    "slices": {"discovery", "transport", "functional", "metrics", "callbacks"},
    "transport": {"discovery", "slices", "functional", "metrics", "callbacks"},
    "regularizers": {"discovery", "transport", "functional", "metrics", "callbacks"},
    "functional": {"metrics", "callbacks"},
    "metrics": {"callbacks"},
}
LIGHTNING = {"lightning", "pytorch_lightning"}
ROOMS_WITH_LIGHTNING = {"callbacks", "compare", "demo", "cli"}
ROOMS_WITHOUT_TORCH_NN = {"groups", "symmetry"}
OPTIONAL_PACKAGES = {"wandb", "matplotlib", "sklearn", "rich", "torchdiffeq"}


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(parts: tuple[str, ...]) -> str:
    """The room of a dotted name below gaugefix, or the root for a name that __init__ re-exports."""
    if parts and ((PACKAGE / parts[0]).is_dir() or (PACKAGE / f"{parts[0]}.py").is_file()):
        return parts[0]
    return ROOT_ROOM


def room(path: Path) -> str:
    return room_of(path.relative_to(PACKAGE).with_suffix("").parts)


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those that only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            continue
        yield node
        yield from runtime_nodes(node)


def imports(path: Path, runtime: bool = False) -> Iterator[tuple[int, str]]:
    """Every absolute name that the file imports, at any depth, with its line."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in runtime_nodes(tree) if runtime else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def room_imports(path: Path) -> Iterator[tuple[int, str]]:
    for line, name in imports(path):
        top, *below = name.split(".")
        if top == "gaugefix":
            yield line, room_of(tuple(below))


def forbidden(here: str, there: str) -> bool:
    if there == here:
        return False
    if here in MAY_IMPORT:
        return there not in MAY_IMPORT[here]
    return there in MUST_NOT_IMPORT.get(here, set())


def test_rooms_import_only_what_they_may():
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {room(path)} imports {there}"
        for path in files()
        for line, there in room_imports(path)
        if forbidden(room(path), there)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_room_goes_through_the_public_api():
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: import from the room, not from gaugefix"
        for path in files()
        if room(path) not in {ROOT_ROOM, "cli", "demo"}
        for line, there in room_imports(path)
        if there == ROOT_ROOM
    ]
    assert not wrong, "\n".join(wrong)


def test_rooms_form_no_cycle():
    below: dict[str, set[str]] = {}
    for path in files():
        below.setdefault(room(path), set()).update(there for _, there in room_imports(path))
    remaining = {here: there - {here, ROOT_ROOM} for here, there in below.items() if here != ROOT_ROOM}
    while ready := [here for here, there in remaining.items() if not there & remaining.keys()]:
        for here in ready:
            del remaining[here]
    assert not remaining, f"these rooms import one another, or a room in the knot: {remaining}"


def test_only_the_callbacks_and_the_programs_know_lightning():
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: imports {name}"
        for path in files()
        if room(path) not in ROOMS_WITH_LIGHTNING
        for line, name in imports(path)
        if name.split(".")[0] in LIGHTNING
    ]
    assert not wrong, "\n".join(wrong)


def test_groups_and_symmetries_know_no_module():
    # nn.Module as the type of an argument is no dependency, so imports for the type checker are let through.
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: imports {name}"
        for path in files()
        if room(path) in ROOMS_WITHOUT_TORCH_NN
        for line, name in imports(path, runtime=True)
        if name.startswith("torch.nn")
    ]
    assert not wrong, "\n".join(wrong)


def test_importing_gaugefix_imports_no_optional_package():
    # Lightning and torchmetrics may bring some of these themselves, so only what gaugefix adds is counted.
    program = (
        "import sys, lightning.pytorch, torchmetrics; before = set(sys.modules); import gaugefix; "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    added = set(done.stdout.split())
    assert "gaugefix" in added
    assert not added & OPTIONAL_PACKAGES


def test_every_room_is_reached_from_the_top_and_needs_no_optional_package():
    program = (
        "import sys, lightning.pytorch, torchmetrics; before = set(sys.modules); import gaugefix; "
        "rooms = [getattr(gaugefix, room) for room in gaugefix._ROOMS]; "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & OPTIONAL_PACKAGES


@pytest.mark.parametrize("name", ["utils", "util", "helpers", "helper", "misc", "common"])
def test_no_file_has_a_name_that_says_nothing(name):
    folders = [ROOT / folder for folder in ("gaugefix", "recipes", "tests")]
    assert not [path for folder in folders for path in folder.rglob(f"{name}*") if path.stem == name]
