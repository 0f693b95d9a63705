"""Train the recipe of neural ODEs, fix its gauges, and write what came out to neural_ode.md beside this file.

python docs/evidence/neural_ode.py --out runs

45 runs of the recipe: three data sets, five methods, three seeds. Then gauges are fitted to trained baselines. Runs,
and what was measured on them, count if they are in <out> already.
"""

import argparse
import contextlib
import copy
import io
import itertools
import json
import math
import statistics
import sys
import time
from pathlib import Path

import torch
import torchdiffeq

from gaugefix.demo.ode_classifier import ODEClassifier
from gaugefix.demo.ode_forecaster import ODEForecaster
from gaugefix.demo.quiet import quiet
from gaugefix.demo.solver_error import flow_through
from gaugefix.ode import TimeGauge, fit_gauge

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from recipes.neural_ode import main as recipe  # noqa: E402 - recipes/ is not installed

SEEDS = (0, 1, 2)
TASKS = {"digits": "", "spiral": "spiral_", "eeg": "eeg_"}  # task: prefix of its methods
STEPS = {"digits": 880, "spiral": 720, "eeg": 270}  # of the optimizer
METHODS = ("baseline", "kinetic", "proper_time", "equidistribution", "minimal_norm")
FAMILIES = ("time", "scalar", "diagonal", "linear")
CLOCKS = ("equidistribution", "proper_time")
SOLVERS = (("rk4", 8), ("euler", 16))
STAGES = {"rk4": 4, "euler": 1}
CUTS = (1, 2, 4, 16)  # of each step
TOLERANCES = (1e-3, 1e-5, 1e-7)
FITTED = 1200  # training rows that gauges and clocks are fitted on, or all there are
ENDS = torch.tensor([0.0, 1.0], dtype=torch.float64)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs", help="directory for the results of the recipe (%(default)s)")
    out = Path(parser.parse_args().out).resolve()
    quiet()
    torch.set_num_threads(1)
    runs = {key: find(out, *key) or train(out, *key) for key in itertools.product(TASKS, METHODS, SEEDS)}
    measured = {key: recall(key[0], runs[key[0], "baseline", key[1]]) for key in itertools.product(TASKS, SEEDS)}
    parts = [
        introduction(measured),
        aims(measured),
        methods(runs),
        gauges(measured),
        refinement(measured),
        adaptive(measured),
    ]
    Path(__file__).with_suffix(".md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


# ---- runs ------------------------------------------------------------------------------------------------------------
def find(out: Path, task: str, method: str, seed: int) -> Path | None:
    """Return the newest finished run with these settings."""
    wanted = {"status": "success", "method": TASKS[task] + method, "seed": seed, "nfe": 32, "steps": STEPS[task]}
    paths = sorted((out / "neural_ode").glob(f"*-{TASKS[task]}{method}-s{seed}/summary.json"))
    found = [path.parent for path in paths if wanted.items() <= json.loads(path.read_text()).items()]
    return found[-1] if found else None


def train(out: Path, task: str, method: str, seed: int) -> Path:
    """Run the recipe and return its directory."""
    own = ROOT / "configs/neural_ode" / f"{TASKS[task]}{method}.yaml"
    config, added = (own, []) if own.is_file() else (own.with_name(f"{TASKS[task]}baseline.yaml"), settings(method))
    start = ["fit", f"--config={config}", f"--out={out}", f"--seed_everything={seed}", "--picture=false"]
    with contextlib.redirect_stdout(io.StringIO()):
        return recipe([*start, "--trainer.enable_progress_bar=false", *added]).directory


def settings(method: str) -> list[str]:
    """Return what turns the baseline of a task into a method."""
    if method == "kinetic":
        return ["--model.kinetic=0.001"]
    drift = {"class_path": "gaugefix.OrbitDrift"}
    kind = "gaugefix.GaugeProjection" if method == "minimal_norm" else "gaugefix.demo.time_grid.TimeGrid"
    first = {"class_path": kind, "init_args": {"slice": method, "every_n_steps": 100}}
    return [f"--trainer.callbacks={json.dumps([first, drift])}"]


def summary(run: Path) -> dict:
    """Return the numbers at the end of a run."""
    return json.loads((run / "summary.json").read_text())


# ---- measurements ----------------------------------------------------------------------------------------------------
def recall(task: str, run: Path) -> dict:
    """Measure a run, or read what was measured on it before."""
    kept = run / "gauges.json"
    if not kept.is_file():
        begun = time.process_time()
        found = measure(task, run) | {("seconds",): time.process_time() - begun}
        kept.write_text(json.dumps([[list(key), value] for key, value in found.items()]), encoding="utf-8")
    return {tuple(key): value for key, value in json.loads(kept.read_text(encoding="utf-8"))}


def measure(task: str, run: Path) -> dict:
    """Fit every gauge to the field of a trained model; return its errors on held-out rows."""
    kind = ODEForecaster if task == "eeg" else ODEClassifier
    model = kind.load_from_checkpoint(run / "checkpoints/last.ckpt", weights_only=True)
    net = copy.deepcopy(model.net).double().requires_grad_(False)
    train_x, x = (net.encoder(u.double()) for u in rows_of(task))
    exact = flow_through(net, x, ENDS, rtol=1e-12)[-1]

    def error(states: torch.Tensor) -> float:
        return float((states[-1] - exact).norm() / exact.norm())

    def stepped(field, method: str, times: torch.Tensor) -> float:
        return error(torchdiffeq.odeint(field, x, times, method=method))

    found: dict = {}
    for method, steps in SOLVERS:
        fields = {"none": net.field}
        for family in FAMILIES:
            fields[family] = fit_gauge(net.field, train_x[:FITTED], method, steps, family)
        grids = {name: finer([k / steps for k in range(steps + 1)]) for name in fields}
        for clock in CLOCKS:
            gauge = TimeGauge(clock, method, steps).fit_(net.field, train_x[:FITTED])
            fields[clock], grids[clock] = net.field, finer(gauge.times.tolist())
        for name, field in fields.items():
            for k in CUTS:
                found[name, method, k] = stepped(field, method, grids[name](k))
        best = found["linear", method, 1]
        enough = itertools.count(steps)
        equal = next(n for n in enough if stepped(net.field, method, torch.linspace(0, 1, n + 1).double()) <= best)
        found["equal", method] = equal * STAGES[method]
        if method == "rk4":
            for name, rtol in itertools.product(("none", *FAMILIES), TOLERANCES):
                found[name, "dopri5", rtol] = dopri5(fields[name], x, rtol, error)
    return found


def finer(times: list[float]):
    """Return k → the grid with each step cut into k equal ones."""
    grid = torch.tensor(times, dtype=torch.float64)

    def cut(k: int) -> torch.Tensor:
        parts = [torch.lerp(a, b, torch.arange(k).double() / k) for a, b in itertools.pairwise(grid)]
        return torch.cat([*parts, grid[-1:]])

    return cut


def dopri5(field, x: torch.Tensor, rtol: float, error) -> tuple[float, float]:
    """Return the error and the evaluations of an adaptive solver."""
    calls = 0

    def counted(t, y):
        nonlocal calls
        calls += 1
        return field(t, y)

    options = {"step_t": ENDS}
    states = torchdiffeq.odeint(counted, x, ENDS, method="dopri5", rtol=rtol, atol=rtol / 10, options=options)
    return error(states), calls


def rows_of(task: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return training inputs, in a fixed random order, and validation inputs."""
    from gaugefix.demo.digits import DigitsData
    from gaugefix.demo.eeg import EEGData
    from gaugefix.demo.spiral import SpiralData

    data = {"digits": DigitsData, "spiral": SpiralData, "eeg": EEGData}[task]()
    data.setup()
    inputs = data.train_data.tensors[0]
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    return inputs[order], data.val_data.tensors[0]


# ---- the page --------------------------------------------------------------------------------------------------------
def introduction(measured: dict) -> str:
    """Say what was run."""
    seconds = sorted(found["seconds",] for found in measured.values())
    return f"""# The recipe of neural ODEs: what its gauges do

Written by `python docs/evidence/neural_ode.py`. Every run is

    python recipes/neural_ode.py fit --config configs/neural_ode/<method>.yaml --seed_everything <seed>

on digits (state of dimension 16, 64 hidden units), a spiral (4, 32) and an EEG (8, 32), with rk4 in eight steps, that
is 32 evaluations of the field (NFE). Where spiral and EEG have no configuration of their own, that of their baseline is
changed as for the digits. torch {torch.__version__}, one CPU thread. The gauges of one trained model took
{seconds[0]:.0f} to {seconds[-1]:.0f} s of CPU time."""


def aims(measured: dict) -> str:
    """Set what was aimed at beside what came out."""
    gains = {
        (task, name): geometric(
            measured[task, seed]["none", "rk4", 1] / measured[task, seed][name, "rk4", 1] for seed in SEEDS
        )
        for task, name in itertools.product(TASKS, ("scalar", "linear", "equidistribution"))
    }
    rows = []
    for what, name, over, wanted in (
        ("`fit_gauge`, linear", "linear", None, {"digits": 5, "spiral": 10}),
        ("linear over scalar", "linear", "scalar", {"digits": 2, "spiral": 2}),
        ('`TimeGauge("equidistribution")`', "equidistribution", None, {"digits": 2, "spiral": 2}),
    ):
        cells = []
        for task, aim in wanted.items():
            value = gains[task, name] / (gains[task, over] if over else 1)
            cells.append(f"{value:.1f} (aim {aim}: {'met' if value >= aim else 'missed'})")
        rows.append([what, *cells])
    return f"""## Aims

How many times smaller the error of rk4 with eight steps becomes on the trained baseline, geometric mean over the seeds:

{table(["", "digits", "spiral"], rows)}"""


def methods(runs: dict) -> str:
    """Compare the methods after training."""
    rows = []
    for task, method in itertools.product(TASKS, METHODS):
        found = [summary(runs[task, method, seed]) for seed in SEEDS]
        values = {key: [run.get(key) for run in found] for key in found[0]}
        rows.append(
            [
                task,
                method,
                spread(values["val_loss_final"], "{:.3g}"),
                "" if task == "eeg" else spread(values["val_acc_final"], "{:.4f}"),
                f"{statistics.mean(values['nfe']):.0f}",
                f"{geometric(values['solver_error']):.1e}",
                spread(values["gauge_drift_final"], "{:.3f}"),
            ]
        )
    return f"""## Methods

After the last step; mean ± standard deviation over the seeds {", ".join(map(str, SEEDS))}, solver error as geometric
mean. Solver error: relative distance of the states of 64 held-out inputs from the flow (dopri8 at 1e-9), at most
100 steps after the last fit of a clock. Drift: ‖log g*‖, the distance of the parameters from the minimal-norm slice of
their orbit (state and hidden units), at most 100 steps after a projection.

{table(["data", "method", "loss", "accuracy", "NFE", "solver error", "drift"], rows)}

{compare(runs)}"""


def compare(runs: dict) -> str:
    """Say by how many standard deviations the losses differ."""
    lines = []
    for task, method in itertools.product(TASKS, METHODS[1:]):
        pair = [[summary(runs[task, name, seed])["val_loss_final"] for seed in SEEDS] for name in ("baseline", method)]
        pooled = math.sqrt(sum(statistics.variance(values) for values in pair) / 2)
        lines.append([task, method, f"{(statistics.mean(pair[1]) - statistics.mean(pair[0])) / pooled:+.2f}"])
    cells = {(task, method): value for task, method, value in lines}
    rows = [[task, *(cells[task, method] for method in METHODS[1:])] for task in TASKS]
    return f"""Difference of the mean loss from the baseline, in pooled standard deviations over the seeds:

{table(["data", *METHODS[1:]], rows)}"""


def gauges(measured: dict) -> str:
    """Compare the gauges of the trained baselines at equal NFE."""
    rows, names = [], (*FAMILIES, *CLOCKS)
    for task, (method, steps) in itertools.product(TASKS, SOLVERS):
        each = [measured[task, seed] for seed in SEEDS]
        cells = [f"{geometric(m['none', method, 1] for m in each):.1e}"]
        for name in names:
            gains = [m["none", method, 1] / m[name, method, 1] for m in each]
            cells.append(f"{geometric(gains):.2f} ({min(gains):.2f}–{max(gains):.2f})")
        cells.append("/".join(str(m["equal", method]) for m in each))
        rows.append([task, f"{method}, {steps}", *cells])
    return f"""## Gauges of the trained baseline, at equal NFE

The field is frozen. `fit_gauge` and `TimeGauge`, as they are, see {FITTED} training inputs (EEG: all there are), of
which `fit_gauge` holds out a fifth to choose its iterate by. Errors are measured on the validation inputs, seen by
neither: ‖x̂ − x‖/‖x‖ at t = 1, x by dopri8 at 1e-12, all in float64. In the columns of the gauges: how many times
smaller the error is with them, geometric mean over the seeds (smallest–largest); below 1 it is larger. Last column: NFE
that equal steps need for the error of `linear`, one number for each seed.

{table(["data", "solver, steps", "error without", *names, "equal NFE"], rows)}"""


def refinement(measured: dict) -> str:
    """Show that the flow is the same."""
    rows = []
    for task, (method, steps) in itertools.product(TASKS, SOLVERS):
        for name in ("none", "scalar", "linear", *CLOCKS):
            errors = [geometric(measured[task, seed][name, method, k] for seed in SEEDS) for k in CUTS]
            ratios = zip(itertools.pairwise(errors), itertools.pairwise(CUTS), strict=True)
            orders = [math.log(a / b) / math.log(n / m) for (a, b), (m, n) in ratios]
            shown = [f"{error:.1e}" for error in errors] + [", ".join(f"{order:.2f}" for order in orders)]
            rows.append([task, f"{method}, {steps}", name, *shown])
    return f"""## Refinement: the flow is the same

The same gauge, each step cut into 1, 2, 4 and 16. Errors (geometric mean) are against the flow of the field *without*
a gauge: if a gauge moved the flow, they would stay. A fitted gauge lets errors cancel at the number of steps that it is
fitted to, so that the first refinement gains less; then the order of the solver (rk4: 4, Euler: 1) is seen. Orders are
per halving of the step.

{table(["data", "solver, steps", "gauge", *map(str, CUTS), "orders"], rows)}"""


def adaptive(measured: dict) -> str:
    """Show what an adaptive solver makes of a gauge."""
    rows = []
    for task, rtol in itertools.product(TASKS, TOLERANCES):
        cells = []
        for name in ("none", *FAMILIES):
            pairs = [measured[task, seed][name, "dopri5", rtol] for seed in SEEDS]
            cells.append(f"{statistics.mean(n for _, n in pairs):.0f} / {geometric(e for e, _ in pairs):.1e}")
        rows.append([task, f"{rtol:.0e}", *cells])
    ratios = []
    for name in FAMILIES:
        pairs = [
            (found[name, "dopri5", rtol], found["none", "dopri5", rtol])
            for found, rtol in itertools.product(measured.values(), TOLERANCES)
        ]
        calls, errors = (geometric(gauged[k] / plain[k] for gauged, plain in pairs) for k in (1, 0))
        ratios.append(f"{calls:.2f} / {errors:.2f} / {calls * errors ** (1 / 5):.2f}")
    return f"""## An adaptive solver

dopri5 on the fields as gauged for rk4 with eight steps: NFE (mean) / error (geometric mean).

{table(["data", "rtol", "none", *FAMILIES], rows)}

Relative to no gauge, geometric mean over everything above: NFE / error / NFE at equal error, which is NFE · error^(1/5)
for a solver of order five. Above 1 a gauge costs.

{table(FAMILIES, [ratios])}"""


def geometric(values) -> float:
    """Return the geometric mean."""
    return statistics.geometric_mean(list(values))


def spread(values: list[float], form: str) -> str:
    """Return mean and standard deviation."""
    return f"{form.format(statistics.mean(values))} ± {form.format(statistics.stdev(values))}"


def table(headings: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [headings, ["---"] * len(headings), *rows])


if __name__ == "__main__":
    main()
