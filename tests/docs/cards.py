"""The method cards, and networks to try them on."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
METHODS = ROOT / "docs" / "methods"
CARDS = sorted(path.stem for path in METHODS.glob("*.md") if path.stem != "index")


def read(name: str) -> str:
    return (METHODS / f"{name}.md").read_text(encoding="utf-8")


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
