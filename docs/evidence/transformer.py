"""Train the transformer recipe with and without projection, and write what came out to transformer.md beside this file.

python docs/evidence/transformer.py --out runs

Eighteen runs of the recipe: three methods, float32 and bfloat16, three seeds. Runs that are in <out> already count.
"""

import argparse
import json
import statistics
import subprocess
import sys
from itertools import product
from pathlib import Path

import torch

from gaugefix.demo.picture import read_series

ROOT = Path(__file__).parents[2]
LATE = "minimal_norm from step 100"
# method: its configuration, what is added to it, and the projections that are then made
METHODS = {
    "baseline": ("baseline", [], 0),
    "minimal_norm": ("minimal_norm", [], 11),
    LATE: ("baseline", ["--trainer.callbacks+=gaugefix.GaugeProjection", "--trainer.callbacks.at_start=false"], 10),
}
PRECISIONS = {"32-true": torch.float32, "bf16-true": torch.bfloat16}
SEEDS = (0, 1, 2)
ALLOWED = 24  # eps


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs", help="directory for the results (%(default)s)")
    out = Path(parser.parse_args().out)
    runs = {key: find(out, *key) or train(out, *key) for key in product(METHODS, PRECISIONS, SEEDS)}
    text = "\n\n".join([introduction(runs), losses(runs), projections(runs), quantization(runs)])
    Path(__file__).with_suffix(".md").write_text(text + "\n", encoding="utf-8")


def find(out: Path, method: str, precision: str, seed: int) -> Path | None:
    """Return the newest finished run with these settings."""
    wanted = {"precision": precision, "seed": seed, "projections": METHODS[method][2], "weight_decay": 0.0}
    found = [
        path.parent
        for path in sorted((out / "transformer").glob("*/summary.json"))
        if {"status": "success", "architecture": "rope", **wanted}.items() <= json.loads(path.read_text()).items()
    ]
    return found[-1] if found else None


def train(out: Path, method: str, precision: str, seed: int) -> Path:
    """Run the recipe and return its directory."""
    config, added, _ = METHODS[method]
    settings = [f"--seed_everything={seed}", f"--trainer.precision={precision}", "--trainer.enable_progress_bar=false"]
    start = ["fit", f"--config=configs/transformer/{config}.yaml", f"--out={out.resolve()}"]
    return Path(printed("transformer", *start, *settings, *added)[-1])


def printed(recipe: str, *arguments: str) -> list[str]:
    """Run a recipe and return the lines that it printed."""
    command = [sys.executable, f"recipes/{recipe}.py", *arguments]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()


def summary(run: Path) -> dict:
    """Return the numbers at the end of a run."""
    return json.loads((run / "summary.json").read_text())


def introduction(runs: dict) -> str:
    """Say what was run."""
    facts = summary(next(iter(runs.values())))
    seconds = [summary(run)["seconds"] for run in runs.values()]
    return f"""# The transformer recipe with and without projection

Written by `python docs/evidence/transformer.py`. Every run is

    python recipes/transformer.py fit --config configs/transformer/<method>.yaml --seed_everything <seed> \\
        --trainer.precision <parameters>

For *{LATE}* it is `baseline.yaml` with
`{" ".join(METHODS[LATE][1])}`.
The network has {facts["layers"]} layers, width {facts["width"]} and {facts["heads"]} query heads on
{facts["kv_heads"]} key heads; it takes {facts["steps"]} steps of AdamW; projections at the start and every 100 steps.
Python {facts["python"]}, torch {torch.__version__}, one CPU thread, {min(seconds):.0f} to {max(seconds):.0f} s per run.
The text is `{facts["corpus"]}`, sha256 `{facts["corpus_sha256"]}`.
Another version of Python has another text and other losses."""


def losses(runs: dict) -> str:
    """Compare the losses."""
    rows = []
    for precision in PRECISIONS:
        values = {
            method: [summary(runs[method, precision, seed])["val_loss_final"] for seed in SEEDS] for method in METHODS
        }
        for method, found in values.items():
            each = ", ".join(f"{value:.4f}" for value in found)
            rows.append([precision, method, each, f"{statistics.mean(found):.4f} ± {statistics.stdev(found):.4f}", ""])
        for method in list(METHODS)[1:]:
            rows.append([precision, f"{method} − baseline", *difference(values["baseline"], values[method])])
    return f"""## Loss

Validation loss in nats per character after the last step; mean and standard deviation over the seeds. A projection
keeps the function but not the trajectory: Adam's steps depend on the gauge. *{LATE}* leaves the
initial parameters as they are. The last column is the difference divided by the standard deviation of the loss over
seeds (of both methods, pooled): what is well below 2 is noise, and a negative sign is a lower loss with projection.

{table(["parameters", "method", f"seeds {', '.join(map(str, SEEDS))}", "mean ± std", "difference / std"], rows)}"""


def difference(baseline: list[float], other: list[float]) -> list[str]:
    """Return the differences seed by seed, their mean and deviation, and the mean in deviations of a run."""
    found = [b - a for a, b in zip(baseline, other, strict=True)]
    pooled = ((statistics.variance(baseline) + statistics.variance(other)) / 2) ** 0.5
    mean = statistics.mean(found)
    each = ", ".join(f"{value:+.4f}" for value in found)
    return [each, f"{mean:+.4f} ± {statistics.stdev(found):.4f}", f"{mean / pooled:+.1f}"]


def projections(runs: dict) -> str:
    """List what the projections did."""
    bounds, steps = [], []
    for precision, dtype in PRECISIONS.items():
        eps = torch.finfo(dtype).eps
        files = [runs["minimal_norm", precision, seed] / "metrics.jsonl" for seed in SEEDS]
        series = {
            key: [read_series(file, f"gauge/{key}") for file in files]
            for key in ("drift_before", "drift_after", "invariance_error")
        }
        errors = [error for _, values in series["invariance_error"] for error in values]
        final = [summary(runs["baseline", precision, seed])["gauge_drift_final"] for seed in SEEDS]
        bounds.append(
            [
                precision,
                str(len(errors)),
                f"{max(errors):.1e}",
                f"{max(errors) / eps:.1f} eps",
                f"{ALLOWED} eps = {ALLOWED * eps:.1e}",
                f"{max(v for _, values in series['drift_after'] for v in values):.1e}",
                ", ".join(f"{value:.1f}" for value in final),
            ]
        )
        for k, step in enumerate(series["drift_before"][0][0]):
            before, after, error = (series[key][0][1][k] for key in series)
            steps.append([precision, str(step), f"{before:.2e}", f"{after:.1e}", f"{error:.1e}", f"{error / eps:.1f}"])
    headings = ["parameters", "projections", "largest invariance error", "in eps", "allowed"]
    headings += ["largest drift after one", "drift of the baseline at the end"]
    return f"""## Projections

Over all seeds. Invariance error: relative change of the logits at a projection, computed in the parameters' own
precision. Drift: ‖log g*‖, the distance to the minimal-norm slice.

{table(headings, bounds)}

Seed {SEEDS[0]}, every projection:

{table(["parameters", "step", "drift before", "drift after", "invariance error", "in eps"], steps)}"""


def quantization(runs: dict) -> str:
    """Round the trained baseline to 8 bits in several gauges."""
    *lines, _, _ = printed("quantization", str(runs["baseline", "32-true", SEEDS[0]].resolve()))
    markdown = "\n".join(lines)
    return f"""## Rounding attention to 8 bits

The trained baseline, seed {SEEDS[0]}, as it is and moved along its orbit: the same function in other parameters.
*random* is a control, a random element of log-standard deviation 0.3.

    python recipes/quantization.py runs/transformer/<run>

{markdown}"""


def table(headings: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [headings, ["---"] * len(headings), *rows])


if __name__ == "__main__":
    main()
