"""Write what method cards have in common: the facts of every term, what methods cost, and the table of all methods.

python docs/method_cards.py

The facts of a term are the attributes of its class, word for word; what was measured is that of method_cost.md and
term_gradients.md in docs/evidence. The other facts of other methods are written in their cards. So between the marks
nothing of a term's card is to be edited by hand, nothing that was measured, and nothing of docs/methods/index.md.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path

from gaugefix.regularizers import GaugeTerm, term_class, term_names
from gaugefix.slices import slice_names

METHODS = Path(__file__).parent / "methods"
EVIDENCE = Path(__file__).parent / "evidence"
BEGIN, END = "<!-- facts -->", "<!-- /facts -->"
SOFT = "soft_"
"""Before the name of a term that is a slice too, as in `gaugefix compare`."""
FACTS = {
    "gauge condition": "condition",
    "residual freedom": "freedom",
    "changes the function": "changes_function",
    "cost": "cost",
    "source": "source",
}
"""Rows of the table of facts, and the attribute of a term that each is."""
MEASURED = {"changes the function": "share of its gradient that is gauge", "cost": "measured cost"}
"""Rows that are measured, each by the row that it stands behind."""
KINDS = {
    "Slices": ("minimal_norm", "unit_norm", "spectral", "reference", "flat", "dyadic"),
    "Terms": ("l2", "charge", "balance", "soft_unit_norm", "orthogonality", "soft_reference", "depth_smoothness"),
    "Controls": ("path_norm", "product_of_norms", "nuclear_norm"),
    "Terms on trajectories": ("kinetic", "speed_variance", "jacobian_frobenius"),
    "Clocks": ("equidistribution", "proper_time"),
}
"""Every card, as they are listed."""


def terms() -> dict[str, type[GaugeTerm]]:
    """Return the class of every registered term by the name of its card."""
    return {SOFT + name if name in slice_names() else name: term_class(name) for name in term_names()}


def facts_of(term: type[GaugeTerm]) -> dict[str, str]:
    """Return the facts of a term: its formula, and the rows of FACTS."""
    formula = (inspect.getdoc(term) or "").splitlines()[0].removesuffix(".")
    return {"term": formula, **{row: getattr(term, attribute) for row, attribute in FACTS.items()}}


def measured_costs() -> dict[str, str]:
    """Return what each method costs, by the name of its card."""
    found: dict[str, list[str]] = {}
    for label, cells in _table("method_cost.md").items():
        name = re.search(r"(term )?`(\w+)`, (.*)", label)
        if name:
            card = SOFT + name[2] if name[1] and name[2] in slice_names() else name[2]
            shares = ", ".join(f"{net} {cell.split(' (')[0]}" for net, cell in cells.items())
            found.setdefault(card, []).append(f"{name[3]}: {shares}")
    return {card: f"{'; '.join(costs)} of a step ([how](../evidence/method_cost.md))" for card, costs in found.items()}


def measured_gradients() -> dict[str, str]:
    """Return how much of each term's gradient is gauge, by the name of its card."""
    found = {}
    for label, cells in _table("term_gradients.md").items():
        name = label.strip("`")
        parts = ", ".join(f"{net} {cell}" for net, cell in cells.items())
        shares = f"initial / unbalanced: {parts} ([how](../evidence/term_gradients.md))"
        found[SOFT + name if name in slice_names() else name] = shares
    return found


def _table(page: str) -> dict[str, dict[str, str]]:
    """Return a table of a page by row and column, without empty cells."""
    text = (EVIDENCE / page).read_text(encoding="utf-8")
    head, _, *rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in re.findall(r"^\|.*\|$", text, re.M)]
    return {row[0]: {net: cell for net, cell in zip(head[1:], row[1:], strict=True) if cell} for row in rows}


def read_facts(card: str) -> dict[str, str]:
    """Return the table of facts of a card.

    Raises:
        ValueError: if there are no marks.
    """
    rows = re.findall(r"^\| (\w[^|]*?) \| (.*) \|$", _parts(card)[1], flags=re.MULTILINE)
    return {row: value.replace("\\|", "|") for row, value in rows}


def with_facts(card: str, facts: dict[str, str]) -> str:
    """Return the card with these facts in its table."""
    rows = "".join(f"| {row} | {_cell(value)} |\n" for row, value in facts.items())
    return _filled(card, f"| | |\n| --- | --- |\n{rows}")


def overview(cards: Mapping[str, str]) -> str:
    """Return the tables of all cards, given by name."""
    parts = []
    for kind, names in KINDS.items():
        rows = []
        for name in names:
            facts = read_facts(cards[name])
            cells = [_cell(facts[row]) for row in ("gauge condition", "changes the function")]
            rows.append(f"| [`{name}`]({name}.md) | {summary(cards[name])} | {' | '.join(cells)} |\n")
        head = "| name | what it does | gauge condition | changes the function |\n| --- | --- | --- | --- |\n"
        parts.append(f"## {kind}\n\n{head}{''.join(rows)}")
    return "\n".join(parts)


def summary(card: str) -> str:
    """Return the sentence under the title of a card."""
    return card.split("\n\n")[1].replace("\n", " ")


def render() -> dict[Path, str]:
    """Return every card and the page that lists them, with their generated parts."""
    cards = {name: (METHODS / f"{name}.md").read_text(encoding="utf-8") for names in KINDS.values() for name in names}
    facts = {name: read_facts(card) for name, card in cards.items()}
    facts |= {name: facts_of(term) for name, term in terms().items()}
    found = {"changes the function": measured_gradients(), "cost": measured_costs()}
    for name, rows in facts.items():
        ordered = {}
        for row in (row for row in rows if row not in MEASURED.values()):
            ordered[row] = rows[row]
            if name in found.get(row, {}):
                ordered[MEASURED[row]] = found[row][name]
        cards[name] = with_facts(cards[name], ordered)
    index = (METHODS / "index.md").read_text(encoding="utf-8")
    cards["index"] = _filled(index, overview(cards))
    return {METHODS / f"{name}.md": text for name, text in cards.items()}


def _parts(text: str) -> list[str]:
    """What is before, between and behind the marks."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"Expected one {BEGIN} and one {END}, got:\n{text}")
    before, rest = text.split(BEGIN)
    return [before, *rest.split(END)]


def _filled(text: str, between: str) -> str:
    before, _, behind = _parts(text)
    return f"{before}{BEGIN}\n\n{between}\n{END}{behind}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Write them."""
    for path, text in render().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
