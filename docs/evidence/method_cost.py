"""Measure what each slice and each term costs on the networks of the recipes, and write it to method_cost.md.

python docs/evidence/method_cost.py

About eight minutes on one core.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from gaugefix import GaugeProjection, GaugeRegularizer
from gaugefix.demo.corpus import VOCABULARY
from gaugefix.demo.digits import CLASSES, PIXELS, SIDE
from gaugefix.demo.language_model import LanguageModel
from gaugefix.demo.methods import LAZY, NOT_PROJECTED
from gaugefix.demo.mlp import MLP
from gaugefix.demo.ode_classifier import ODEClassifier
from gaugefix.demo.quiet import quiet
from gaugefix.demo.residual_cnn import ResidualCNN
from gaugefix.errors import SettingError
from gaugefix.regularizers import term_names
from gaugefix.slices import slice_names

STEPS, RUNS = 100, 3
LAZY_TOO = ("charge", "balance")
"""Terms that are measured as `gaugefix compare` runs them, too."""


def images(shape: tuple[int, ...], batch: int = 64) -> tuple[Tensor, Tensor]:
    """Return inputs and labels of one batch."""
    return torch.randn(batch, *shape), torch.arange(batch) % CLASSES


def text(batch: int = 16, context: int = 64) -> tuple[Tensor, Tensor]:
    """Return characters and the ones behind them."""
    characters = torch.randint(VOCABULARY, (batch, context + 1))
    return characters[:, :-1].contiguous(), characters[:, 1:].contiguous()


NETWORKS: dict[str, tuple[Callable[[], LightningModule], Callable[[], tuple[Tensor, Tensor]]]] = {
    "MLP": (MLP, lambda: images((PIXELS,))),
    "CNN": (ResidualCNN, lambda: images((1, SIDE, SIDE))),
    "transformer": (lambda: LanguageModel("rope", width=96, layers=3, heads=4, kv_heads=2), text),
    "neural ODE": (lambda: ODEClassifier(dimension=16, hidden=64), lambda: images((PIXELS,))),
}


class Clock(Callback):
    """Times the steps of a fit, all callbacks included, from the first to the last."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start."""
        self.begun = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop."""
        self.seconds = time.perf_counter() - self.begun


def fit(network: str, acting: Callback | None) -> float:
    """Train for some steps; return the milliseconds of one, all callbacks included."""
    seed_everything(0, verbose=False)
    make, data = NETWORKS[network]
    batch = data()
    loader = DataLoader(TensorDataset(*(part.repeat(STEPS, *[1] * (part.ndim - 1)) for part in batch)), len(batch[0]))
    clock = Clock()
    trainer = Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[clock, *([acting] if acting else [])],
    )
    trainer.fit(make(), loader)
    return 1e3 * clock.seconds / STEPS


def share(network: str, make: Callable[[], Any]) -> tuple[float, float] | None:
    """Return the share of a callback in percent of a step without it, and its own milliseconds a step.

    Medians over the runs; None where the method does not apply to the network.
    """
    shares, own = [], []
    for _ in range(RUNS):
        acting = make()
        try:
            whole = fit(network, acting)
        except SettingError:
            return None
        own.append(1e3 * acting.seconds / STEPS)
        shares.append(100 * own[-1] / (whole - own[-1]))
    return statistics.median(shares), statistics.median(own)


def methods() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield every method with what makes its callback."""
    for name in slice_names():
        if name not in NOT_PROJECTED:
            every = GaugeProjection(name).every_n_steps
            yield f"`{name}`, every {every} steps", lambda name=name: GaugeProjection(name, at_start=False)
    for name in term_names():
        yield f"term `{name}`, every step", lambda name=name: GaugeRegularizer(name, strength=1e-5)
        if name in LAZY_TOO:
            lazy = f"term `{name}`, every {LAZY} steps"
            yield lazy, lambda name=name: GaugeRegularizer(name, strength=1e-5, every_n_steps=LAZY)


HEAD = f"""# What each method costs

Written by `python docs/evidence/method_cost.py`, torch {torch.__version__}, one CPU thread.

Time that the callback takes in {STEPS} optimizer steps of a fit in Lightning, in percent of the time of the steps
without it (in brackets: milliseconds a step); median of {RUNS} runs. A projection includes the solution, the transport
of the optimizer's state, the comparison of outputs before and after, and the measurement of what is left. Finding the
gauge group, once per fit, is not included. The networks are those of the recipes, at their settings: an MLP of four
layers of 256 units, a CNN with batch norms, a rotary transformer of width 96 with three layers, a neural ODE with 16
states; SGD for the first two, AdamW for the others. They are small: on larger batches a step costs more, and the share
is smaller. Empty: does not apply (no blocks, no units, no repeated layers).

"""


def main() -> None:
    """Measure everything and write the page."""
    quiet()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    bare = {name: statistics.median(fit(name, None) for _ in range(RUNS)) for name in NETWORKS}
    lines = [["method", *NETWORKS], ["---", *["---:"] * len(NETWORKS)]]
    lines.append(["one step, ms", *(f"{ms:.2g}" for ms in bare.values())])
    for label, make in methods():
        found = [share(name, make) for name in NETWORKS]
        lines.append([label, *("" if f is None else f"{f[0]:.2g} % ({f[1]:.2g})" for f in found)])
        print(lines[-1])  # noqa: T201 - the progress of a program
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    (Path(__file__).parent / "method_cost.md").write_text(HEAD + table, encoding="utf-8")


if __name__ == "__main__":
    main()
