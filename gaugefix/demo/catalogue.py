"""``gaugefix recipes``: what can be trained from a checkout, and how."""

from __future__ import annotations

from pathlib import Path

import gaugefix
from gaugefix.errors import GaugeError, did_you_mean


class RecipeError(GaugeError, ValueError):
    """There is no such recipe here."""


def checkout() -> Path:
    """Return the directory that holds recipes/ and configs/: the working directory, or the one gaugefix runs from.

    Raises:
        RecipeError: if gaugefix was installed as a package and the working directory is no checkout.
    """
    for root in (Path.cwd(), Path(gaugefix.__file__).resolve().parents[1]):
        if (root / "recipes").is_dir() and (root / "configs").is_dir():
            return root
    raise RecipeError(
        f"Expected a checkout of gaugefix with recipes/ and configs/, got '{Path.cwd()}'. The installed package does "
        "not hold them: start the command in a checkout. 'gaugefix demo' runs anywhere."
    )


def catalogue(name: str | None = None) -> str:
    """Return recipes and configurations with the line that starts each.

    Args:
        name: of one recipe; all by default.

    Raises:
        RecipeError: for an unknown name; the message has the nearest one and the list.
    """
    root = checkout()
    scripts = {path.stem: path for path in sorted((root / "recipes").glob("*.py")) if path.stem != "__init__"}
    if name is not None and name not in scripts:
        raise RecipeError(f"Expected the name of a recipe, got '{name}'. {did_you_mean(name, scripts)}")
    lines = [f"In {root}:"]
    for recipe in [name] if name else scripts:
        lines += ["", f"{recipe}: {_docstring(scripts[recipe])[0]}"]
        for config in sorted((root / "configs" / recipe).glob("*.yaml")):
            lines.append(f"  python recipes/{recipe}.py fit --config configs/{recipe}/{config.name}")
            lines += [f"      {line}" for line in _remarks(config)]
        if not (root / "configs" / recipe).is_dir():
            lines += [f"  {line}" for line in _docstring(scripts[recipe]) if line.startswith("python ")]
    return "\n".join(lines)


def _docstring(script: Path) -> list[str]:
    return script.read_text(encoding="utf-8").split('"""')[1].strip().splitlines()


def _remarks(config: Path) -> list[str]:
    """The comment at the top of a configuration, without its launch line."""
    lines = config.read_text(encoding="utf-8").splitlines()
    top = lines[: next((k for k, line in enumerate(lines) if not line.startswith("#")), len(lines))]
    return [text for line in top if (text := line.lstrip("# ").strip()) and not text.startswith("python ")]
