"""The code of docs/neural_ode.md runs, and its words name what there is."""

import re
from pathlib import Path

import gaugefix.ode

PAGE = (Path(__file__).parents[2] / "docs" / "neural_ode.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_the_page_runs():
    names: dict = {}
    for block in BLOCKS:
        exec(compile(block, "docs/neural_ode.md", "exec"), names)
    assert len(BLOCKS) == 5


def test_it_names_what_there_is():
    words = set(re.findall(r"`([A-Za-z_]+)`", PAGE))
    named = words & set(gaugefix.ode.__all__)
    assert len(named) >= 15
    others = {
        "odeint",
        "odeint_adjoint",
        "DiffeomorphismError",
        "equidistribution",
        "proper_time",
        "integrate",
        "options",
    }
    assert words - named <= others | {"family"}
