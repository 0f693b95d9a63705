"""A process that carries out runs of recipes, one after the other: a task per line in, a reply per line out.

``python -m gaugefix.compare.worker`` imports torch once and lives as long as its standard input. Prints and warnings of
a run go to output.txt in its directory.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import os
import shutil
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from gaugefix.compare.run import read_summary

OUTPUT = "output.txt"


def load_recipe(script: str) -> Callable[[list[str]], Any]:
    """Return ``main`` of a recipe's file."""
    name = f"gaugefix_recipe_{Path(script).stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, script)
        if spec is None or spec.loader is None:
            raise FileNotFoundError(f"Expected the file of a recipe, got '{script}'.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return cast("Callable[[list[str]], Any]", sys.modules[name].main)


def carry_out(task: Mapping[str, Any]) -> dict[str, Any]:
    """Do one run in an empty directory and return how it ended.

    Args:
        task: ``script``, ``arguments`` (of the recipe), ``directory``, and ``identity`` (what a summary without a run
            says about it).

    Returns:
        ``status`` (success or failed), ``seconds``, and ``error`` or ``batches`` (of a pass over the data); with
        ``describe`` in the task also ``gauge``, the table of the model's gauge group.
    """
    begun = time.perf_counter()
    directory = Path(task["directory"])
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    output = directory / OUTPUT
    done: Any = None
    error: BaseException | None = None
    with output.open("w", encoding="utf-8") as text, _into(text), warnings.catch_warnings():
        try:
            done = load_recipe(task["script"])(list(task["arguments"]))
        except (Exception, SystemExit) as reason:
            traceback.print_exc()
            error = reason
            end_wandb()
    seconds = {"seconds": time.perf_counter() - begun}
    if error is not None:
        return failed(task, explained(error, output)) | seconds
    if not output.stat().st_size:
        output.unlink()
    batches = {"batches": getattr(getattr(done, "trainer", None), "num_training_batches", None)}
    return {"status": "success", **seconds, **batches, **(gauge_of(done.model) if task.get("describe") else {})}


def gauge_of(model: Any) -> dict[str, str]:
    """Return the table of a model's gauge group."""
    from gaugefix.discovery import discover

    return {"gauge": str(discover(model, (model.example_input_array,)))}


def end_wandb() -> None:
    """End the W&B run of a run that failed, or the next run would write into it."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        wandb.finish(exit_code=1)


def failed(task: Mapping[str, Any], error: str) -> dict[str, Any]:
    """Write the summary of a run that failed, and return the reply."""
    directory = Path(task["directory"])
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "summary.json"
    found = read_summary(directory) or {}
    whole = {**found, **task["identity"], "status": "failed", "error": error}
    part = path.with_name("summary.json.part")
    part.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    part.replace(path)
    return {"status": "failed", "error": error}


def explained(error: BaseException, output: Path) -> str:
    """Return an error as one line; a recipe that refuses its command line says why in the output."""
    if isinstance(error, SystemExit):
        said = [line for line in output.read_text(encoding="utf-8").splitlines() if "rror:" in line]
        return said[0] if said else f"SystemExit: {error}"
    return " ".join(f"{type(error).__name__}: {error}".split())


@contextlib.contextmanager
def _into(text: Any) -> Any:
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        yield


def end_with(parent: int) -> None:
    """End when the process that started this one is gone: somebody may go on with its comparison."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main() -> None:
    """Serve until the input ends."""
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not look like a reply
    for line in sys.stdin:
        print(json.dumps(carry_out(json.loads(line))), file=replies, flush=True)
        gc.collect()  # a trainer and its callbacks know one another


if __name__ == "__main__":
    main()
