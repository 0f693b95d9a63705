"""Measure how much of each term's gradient only changes the gauge, and write it to term_gradients.md.

python docs/evidence/term_gradients.py

A few seconds on one core.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from lightning import seed_everything
from lightning.pytorch import LightningModule
from torch.nn.functional import cross_entropy

import gaugefix
from gaugefix.demo.language_model import LanguageModel
from gaugefix.demo.mlp import MLP
from gaugefix.demo.ode_classifier import ODEClassifier
from gaugefix.demo.residual_cnn import ResidualCNN
from gaugefix.demo.unbalanced_start import NONCOMPACT
from gaugefix.errors import SettingError
from gaugefix.functional import vertical_fraction
from gaugefix.regularizers import get_term, term_names
from gaugefix.symmetry import GaugeGroup, named_tensors

LOG_STD = 1.0
MEASURED = tuple(name for name in term_names() if name != "reference")
NETWORKS: dict[str, Callable[[], LightningModule]] = {
    "MLP": MLP,
    "CNN": ResidualCNN,
    "transformer": lambda: LanguageModel("rope", width=96, layers=3, heads=4, kv_heads=2),
    "neural ODE": lambda: ODEClassifier(dimension=16, hidden=64),
}
HEAD = f"""# How much of a term's gradient is gauge

Written by `python docs/evidence/term_gradients.py`, torch {torch.__version__}.

‖Π_vert ∇R‖²/‖∇R‖², the part of the gradient of each term that points along the orbit: 1 for pure gauge fixing, 0 for a
term that is a property of the function. In float64, for the networks of the recipes at their initial parameters /
unbalanced: behind a random element of their scalings and mixings, log λ of standard deviation {LOG_STD}. *Loss* is the
cross entropy of a random batch, whose gradient is horizontal by the identity that
[Noether charges](../noether.md) derives. Empty: does not apply. `reference` is left out: it depends on the reference.

"""


def network(name: str, unbalanced: bool) -> tuple[LightningModule, GaugeGroup]:
    """Return a network of a recipe, and its gauge group."""
    seed_everything(0, verbose=False)
    model = NETWORKS[name]().double().train()
    example = model.example_input_array
    model.example_input_array = example.double() if example.is_floating_point() else example
    gauge = gaugefix.discover(model, (model.example_input_array,))
    if unbalanced:
        scales = gauge.select(lambda symmetry: isinstance(symmetry.group, NONCOMPACT))
        gaugefix.act_(model, scales, scales.random(scale=LOG_STD, seed=0))
    return model, gauge


def of_loss(model: LightningModule, gauge: GaugeGroup) -> float:
    """Return the vertical fraction of the gradient of the loss."""
    outputs = model(model.example_input_array)
    outputs = outputs.reshape(-1, outputs.shape[-1])
    cross_entropy(outputs, torch.randint(outputs.shape[-1], (len(outputs),))).backward()
    return vertical_fraction(model, gauge, {n: p.grad for n, p in model.named_parameters() if p.grad is not None})


def of_term(model: LightningModule, gauge: GaugeGroup, name: str) -> float | None:
    """Return the vertical fraction of the gradient of a term; None where the term does not apply."""
    term = get_term(name)
    try:
        term.check(gauge)
    except SettingError:
        return None
    gradients = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    term.add_gradient_(gauge, named_tensors(model), gradients, 1.0)
    return vertical_fraction(model, gauge, gradients)


def shown(fraction: float | None) -> str:
    """Return three digits."""
    return "" if fraction is None else f"{fraction:.3f}"


def main() -> None:
    """Measure everything and write the page."""
    columns = []
    for name in NETWORKS:
        pair = [network(name, unbalanced) for unbalanced in (False, True)]
        rows = [[shown(of_loss(*one)) for one in pair]]
        rows += [[shown(of_term(*one, term)) for one in pair] for term in MEASURED]
        columns.append([" / ".join(filter(None, row)) for row in rows])
    lines = [["gradient of", *NETWORKS], ["---", *["---:"] * len(NETWORKS)]]
    for label, *cells in zip(["loss", *(f"`{term}`" for term in MEASURED)], *columns, strict=True):
        lines.append([label, *cells])
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    (Path(__file__).parent / "term_gradients.md").write_text(HEAD + table, encoding="utf-8")


if __name__ == "__main__":
    main()
