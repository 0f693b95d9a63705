"""Measure Noether charges against their predicted decay on the feedforward recipe, and write noether.md beside this.

python docs/evidence/noether.py --out runs

Forty-one runs of the recipe. Runs that are in <out> already count.
"""

import argparse
import json
import statistics
import sys
from itertools import product
from pathlib import Path

from gaugefix.demo.charges import charge_names, deviations
from gaugefix.demo.picture import read_series

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from recipes.feedforward import main as recipe  # noqa: E402 - all runs in one process: they start sooner

STARTS = ("balanced", "unbalanced")
SEEDS = (0, 1, 2)
STEPS_AN_EPOCH = 22
# momentum, learning rate, weight decay: wd·lr/(1−m) = 1e-3, so that each run of 990 steps should end at e^(−2) = 13.5 %
DECAYING = [
    (m, lr, round(1e-3 * (1 - m) / lr, 6)) for m, lr in ((0.0, 0.1), (0.0, 0.3), (0.9, 0.01), (0.9, 0.03), (0.9, 0.1))
]
CONSERVING = [(0.0, 0.1, 0.0), (0.9, 0.03, 0.0)]
LONG = (0.9, 0.01, 0.01)
EPOCHS, LONG_EPOCHS = 45, 135
# what is measured in ten epochs: optimizer, lr, momentum, weight decay; the first also beside terms of no strength
UPDATES = [("sgd", 0.1, 0.0, 0.0), ("sgd", 0.03, 0.9, 0.0), ("sgd", 0.03, 0.9, 0.001)]
UPDATES += [("adam", 0.001, 0.9, 0.0), ("adamw", 0.001, 0.9, 0.1)]
TERMS = ("charge", "l2", "unit_norm", "balance", "path_norm")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs", help="directory for the results (%(default)s)")
    out = Path(parser.parse_args().out)
    keys = [(*setting, start, seed, EPOCHS) for setting, seed, start in product(DECAYING, SEEDS, STARTS)]
    keys += [(*setting, start, 0, EPOCHS) for setting, start in product(CONSERVING, STARTS)]
    keys += [(*LONG, start, 0, LONG_EPOCHS) for start in STARTS]
    runs = {key: find(out, *key) or train(out, *key) for key in keys}
    text = "\n\n".join([introduction(runs), decays(runs), late(runs), conservation(runs), vertical(out)])
    Path(__file__).with_suffix(".md").write_text(text + "\n", encoding="utf-8")


def find(out: Path, momentum: float, lr: float, decay: float, start: str, seed: int, epochs: int) -> Path | None:
    """Return the newest run with these settings, finished or diverged."""
    wanted = {"method": "noether", "optimizer": "sgd", "momentum": momentum, "lr": lr, "weight_decay": decay}
    wanted |= {"start": start, "seed": seed, "status": "success"}
    found = []
    for path in sorted((out / "feedforward").glob("*/summary.json")):
        values = json.loads(path.read_text())
        whole = values["steps"] == epochs * STEPS_AN_EPOCH or (values["diverged"] and epochs == EPOCHS)
        if whole and wanted.items() <= values.items():
            found.append(path.parent)
    return found[-1] if found else None


def train(out: Path, momentum: float, lr: float, decay: float, start: str, seed: int, epochs: int) -> Path:
    """Run the recipe and return its directory."""
    command = ["fit", f"--config={ROOT / 'configs/feedforward/noether.yaml'}"]
    command += [f"--out={out.resolve()}", "--picture=false", "--trainer.enable_progress_bar=false"]
    command += [f"--model.momentum={momentum}", f"--model.lr={lr}", f"--model.weight_decay={decay}"]
    command += [f"--start={start}", f"--seed_everything={seed}", f"--trainer.max_epochs={epochs}"]
    command += ["--trainer.enable_checkpointing=false"]
    return recipe(command).directory


def summary(run: Path) -> dict:
    """Return the numbers at the end of a run."""
    return json.loads((run / "summary.json").read_text())


def charges(run: Path) -> tuple[float, float, float]:
    """Return ‖q‖ at the start and at the end, and the prediction at the end."""
    measured = read_series(run / "metrics.jsonl", "gauge/charge")[1]
    return measured[0], measured[-1], read_series(run / "metrics.jsonl", "gauge/charge_predicted")[1][-1]


def errors(run: Path, name: str = "gauge") -> list[float]:
    """Return measured/predicted − 1 at every measurement behind the first."""
    return deviations(run / "metrics.jsonl", name)[1][1:]


def worst_class(run: Path) -> float:
    """Return the largest error of the charge of one layer, at any time."""
    names = charge_names(run / "metrics.jsonl")[1:]
    return max((max(map(abs, errors(run, name))) for name in names), default=0.0)


def introduction(runs: dict) -> str:
    """Say what was run."""
    accuracy = [summary(run)["val_acc_best"] for run in runs.values() if not summary(run)["diverged"]]
    bad = sum(summary(run)["diverged"] for run in runs.values())
    least, most = min(accuracy), max(accuracy)
    return f"""# Noether charges against their predicted decay

Written by `python docs/evidence/noether.py`. Every run is

    python recipes/feedforward.py fit --config configs/feedforward/noether.yaml --model.momentum M --model.lr LR
        --model.weight_decay WD --start balanced|unbalanced --seed_everything 0|1|2

an MLP 64-256-256-256-256-10 on digits, 990 steps of SGD with batches of 64 in float32. ‖q‖ is the norm of all 1024
charges. The prediction is q(0)·e^(−2·wd·t), with t as SGD takes it ([docs/noether.md](../noether.md)); nothing in it
is fitted. An error is measured/predicted − 1 at a measurement, every 50 steps; a range is over three seeds.
{bad} runs diverged; the other {len(accuracy)} have best validation accuracies from {least:.3f} to {most:.3f}.

In short: ‖q‖ is within 5 % of the prediction at all times of all three seeds, from a balanced and from an unbalanced
start, for {good(runs)}. It fails

- at larger learning rates, where steps are too large for gradient flow: from a balanced start the charge that they make
  adds up, from an unbalanced one some of the first steps are so large that they double a charge, or training diverges;
- at late times, when what finite steps make outweighs what is left of the charge of the start;
- for a single layer whose charge is small, long before it does for ‖q‖, which the large charges make up."""


def good(runs: dict) -> str:
    """Name the settings whose every run is within 5 %."""
    found = []
    for setting in DECAYING:
        mine = [runs[(*setting, start, seed, EPOCHS)] for start, seed in product(STARTS, SEEDS)]
        if not any(summary(run)["diverged"] for run in mine):
            most = max(max(map(abs, errors(run))) for run in mine)
            found += [f"momentum {setting[0]:g} and lr {setting[1]:g} ({most:.1%} at most)"] if most <= 0.05 else []
    return ", ".join(found) or "none of the settings"


def decays(runs: dict) -> str:
    """The table with weight decay."""
    rows = []
    for (m, lr, decay), start in product(DECAYING, STARTS):
        found = [runs[m, lr, decay, start, seed, EPOCHS] for seed in SEEDS]
        head = f"| {m:g} | {lr:g} | {decay:g} | {start} |"
        stable = [run for run in found if not summary(run)["diverged"]]
        if not stable:
            rows.append(f"{head} – | – | – | – | – | diverges |")
            continue
        begin, end, predicted = (statistics.mean(values) for values in zip(*map(charges, stable), strict=True))
        last = [errors(run)[-1] for run in stable]
        most = max(max(map(abs, errors(run))) for run in stable)
        layer = max(map(worst_class, stable))
        vertical = statistics.median(
            value for run in stable for value in read_series(run / "metrics.jsonl", "gauge/vertical_fraction")[1]
        )
        gone = len(found) - len(stable)
        note = f" ({gone} of 3 diverge)" if gone else ""
        rows.append(
            f"{head} {begin:.3g} → {end:.3g} (predicted {predicted:.3g}) | {span(last)} | {most:.1%} | {layer:.1%} | "
            f"{vertical:.2g} | {'yes' if most <= 0.05 and not gone else 'no'}{note} |"
        )
    table = "\n".join(rows)
    return f"""## With weight decay

Each row should end at e^(−2) = 13.5 % of its start.

| momentum | lr | decay | start | ‖q‖, mean of seeds | error at the end | largest | of one layer | vertical | < 5 % |
|---|---|---|---|---|---|---|---|---|---|
{table}

"Largest" is the error of ‖q‖ at any measurement of any seed, "of one layer" the same for the charge of a single hidden
layer, "vertical" the median vertical fraction of the measured steps: how much of a step only changed the gauge."""


def late(runs: dict) -> str:
    """The long runs."""
    lines = []
    for start in STARTS:
        run = runs[(*LONG, start, 0, LONG_EPOCHS)]
        steps, values = deviations(run / "metrics.jsonl")
        _, measured = read_series(run / "metrics.jsonl", "gauge/charge")
        some = [k for k, step in enumerate(steps) if step in (500, 1000, 1500, 2000, 2500, 3000, 3500, steps[-1])]
        lines += [f"| {start} | {steps[k]} | {measured[k]:.3g} | {values[k]:+.1%} |" for k in some]
    table = "\n".join(lines)
    return f"""## Late times

Momentum {LONG[0]:g}, learning rate {LONG[1]:g}, weight decay {LONG[2]:g}, seed 0, {LONG_EPOCHS * STEPS_AN_EPOCH} steps.

| start | step | ‖q‖ | error |
|---|---|---|---|
{table}"""


def conservation(runs: dict) -> str:
    """The table without weight decay."""
    rows = []
    for (m, lr, decay), start in product(CONSERVING, STARTS):
        run = runs[m, lr, decay, start, 0, EPOCHS]
        if summary(run)["diverged"]:
            rows.append(f"| {m:g} | {lr:g} | {start} | diverges | – |")
        else:
            rows.append(f"| {m:g} | {lr:g} | {start} | {max(errors(run), key=abs):+.2%} | {worst_class(run):.2%} |")
    table = "\n".join(rows)
    return f"""## Without weight decay

Gradient flow would conserve ‖q‖. What finite steps did to it within 990 steps, seed 0:

| momentum | lr | start | largest change of ‖q‖ | of one layer |
|---|---|---|---|---|
{table}"""


def vertical(out: Path) -> str:
    """The vertical fractions of updates and of terms."""
    found = {update: fractions(out, *update) for update in UPDATES}
    rows = [
        f"| {name}, lr {lr:g}" + (f", momentum {m:g}" if name == "sgd" else "") + f", weight decay {decay:g} | "
        f"{found[name, lr, m, decay]['update']:.1e} |"
        for name, lr, m, decay in UPDATES
    ]
    rows += [f"| gradient of the term {term} | {found[UPDATES[0]][term]:.3g} |" for term in TERMS]
    table = "\n".join(rows)
    return f"""## Vertical fractions

Ten epochs of the baseline with seed 0, measured every 20 steps; median. A term is measured along the first of
these runs, with a strength of 1e-12, so that it does not act.

| Δ | ‖Π_vert Δ‖²/‖Δ‖² |
|---|---|
{table}"""


def fractions(out: Path, optimizer: str, lr: float, momentum: float, decay: float) -> dict[str, float]:
    """Run the recipe for ten epochs; return the median vertical fraction of the update and of every term."""
    label = f"vertical_{optimizer}_{lr:g}_{momentum:g}_{decay:g}"
    done = [path for path in sorted((out / "feedforward").glob(f"*-{label}-s0")) if (path / "summary.json").exists()]
    if not done:
        command = ["fit", f"--config={ROOT / 'configs/feedforward/baseline.yaml'}", f"--label={label}"]
        command += [f"--out={out.resolve()}", "--picture=false", "--trainer.enable_progress_bar=false"]
        command += [f"--model.optimizer={optimizer}", f"--model.momentum={momentum}", f"--model.lr={lr}"]
        command += [f"--model.weight_decay={decay}", "--trainer.max_epochs=10", "--trainer.enable_checkpointing=false"]
        command += ["--trainer.callbacks+=gaugefix.callbacks.VerticalFraction", "--trainer.callbacks.every_n_steps=20"]
        for term in TERMS if (optimizer, lr, momentum, decay) == UPDATES[0] else ():
            command += ["--trainer.callbacks+=gaugefix.callbacks.GaugeRegularizer", f"--trainer.callbacks.term={term}"]
            command += ["--trainer.callbacks.strength=1e-12"]
        done = [recipe(command).directory]
    keys = {"update": "gauge/vertical_fraction"} | {term: f"gauge/{term}/vertical_fraction" for term in TERMS}
    series = {name: read_series(done[-1] / "metrics.jsonl", key)[1] for name, key in keys.items()}
    return {name: statistics.median(values) for name, values in series.items() if values}


def span(values: list[float]) -> str:
    """The least and the greatest of some fractions, in percent."""
    return f"{min(values):+.1%} to {max(values):+.1%}"


if __name__ == "__main__":
    main()
