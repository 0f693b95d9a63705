"""What rounding the attention of a trained transformer to 8 bits costs, before and after projections onto slices.

python recipes/quantization.py runs/transformer/<run> --slices minimal_norm spectral

The gauge "random" is a control: the trained model moved along its orbit by a random element, its function the same.

Writes quantization.md and quantization.json into the directory of the run; the path is the last line printed.
"""

import argparse
import copy
import json
import sys
from itertools import islice
from pathlib import Path

import torch

import gaugefix
from gaugefix.demo.corpus import CorpusData
from gaugefix.demo.language_model import LanguageModel
from gaugefix.demo.quantization import report
from gaugefix.demo.quantization_table import as_markdown
from gaugefix.demo.quiet import quiet
from gaugefix.demo.run_directory import OutputError
from gaugefix.errors import GaugeError

CONTROL = 0.3  # standard deviation of the logarithm of the random element


def measure(directory: Path, slices: list[str], windows: int) -> tuple[dict, str]:
    """Return the figures of a run's last checkpoint in its own gauge and on every slice, and the Markdown."""
    checkpoint = directory / "checkpoints" / "last.ckpt"
    if not checkpoint.is_file():
        raise OutputError(
            f"Expected the directory of a transformer run, got '{directory}': it has no checkpoints/last.ckpt. Give "
            "the path that recipes/transformer.py printed last."
        )
    model = LanguageModel.load_from_checkpoint(checkpoint, weights_only=True, map_location="cpu").float().eval()
    data = CorpusData(context=model.context, val_batch_size=32)
    data.setup()
    batches = list(islice(data.val_dataloader(), -(-windows // 32)))
    gauge = gaugefix.discover(model, (model.example_input_array,))
    reports = {"as trained": report(model, batches)}
    for name in ("random", *slices):
        moved = copy.deepcopy(model)
        if name == "random":
            gaugefix.act_(moved, gauge, gauge.random(scale=CONTROL, seed=0))
        else:
            gaugefix.project_(moved, gauge, name)
        reports[name] = report(moved, batches)
    characters = sum(x.numel() for x, _ in batches)
    return {**data.facts, "characters": characters, "gauges": reports}, as_markdown(reports)


def main(args: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="of a run of recipes/transformer.py")
    parser.add_argument(
        "--slices", nargs="+", default=["minimal_norm", "spectral"], help="slices to project onto (%(default)s)"
    )
    parser.add_argument("--windows", type=int, default=256, help="of the validation text to measure on (%(default)s)")
    given = parser.parse_args(args)
    quiet()
    torch.set_num_threads(1)
    try:
        figures, markdown = measure(given.directory, given.slices, given.windows)
    except GaugeError as error:
        print(f"quantization: {error}", file=sys.stderr)
        return 2
    (given.directory / "quantization.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    path = given.directory / "quantization.md"
    path.write_text(markdown + "\n", encoding="utf-8")
    print(markdown)
    print(f"\n{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
