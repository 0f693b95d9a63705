"""What a reader must know beside the numbers: how they were chosen, and what is not there."""

from __future__ import annotations

from collections.abc import Sized

from gaugefix.compare.results import NO_BETTER, Results


def how_chosen(results: Results) -> list[str]:
    """Return how the table was made, a sentence each."""
    more = "highest" if results.maximize else "lowest"
    sentences = [
        f"Every method is shown at its own best learning rate, separately for each start: the one with the {more} "
        f"{results.monitor_key} (the best {results.monitor} of a run, mean over seeds); between equals the lower final "
        "validation loss decides. The same validation data chooses and judges, for every method alike.",
        "Bold is the best mean of a column. Step overhead is the time spent in gaugefix's callbacks, measurements "
        "included, as a share of the rest of the training time; finding the gauge group once is not in it.",
    ]
    if results.lrs:
        top = f"{results.lrs[-1]:g}"
        sentences.append(
            "Largest stable lr is the greatest learning rate below the first at which a run diverged (its loss was not "
            f"finite) or had not learned (its validation loss ended above {NO_BETTER:g} of the untrained loss); the "
            f"grid ends at {top}, so {top} means that or more."
        )
    return sentences


def facts(results: Results) -> list[str]:
    """Return what was run, and what is missing, a sentence each."""
    lines = [spread(results)]
    stuck = sum(run.outcome == "finished" and not results.learned(run) for run in results.runs)
    outcomes = [run.outcome for run in results.runs]
    planned = results.planned
    of = f" of {planned}" if planned and planned != len(outcomes) else ""
    lines.append(
        f"{len(outcomes)}{of} {'run' if len(outcomes) == 1 else 'runs'}: {counted(results.methods, 'method')}, "
        f"{counted(results.lrs, 'learning rate')}, {counted(results.seeds, 'seed')}, "
        f"{' and '.join(results.starts)} start. "
        f"{outcomes.count('diverged')} diverged, {stuck} had not learned, {outcomes.count('failed')} failed."
    )
    if results.unfinished:
        lines.append(
            f"{len(results.unfinished)} runs have no summary and are left out: {', '.join(results.unfinished)}."
        )
    if results.superseded:
        lines.append(
            f"{results.superseded} earlier runs are left out: a later one has the same method, learning rate, start "
            "and seed."
        )
    lengths = sorted(
        {steps for run in results.runs if run.outcome == "finished" if (steps := run.summary.get("steps"))}
    )
    if len(lengths) > 1:
        lines.append(f"The runs differ in length: {lengths[0]} to {lengths[-1]} steps.")
    return lines + failures(results)


def failures(results: Results) -> list[str]:
    """Return what went wrong, a sentence for each method and error."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for run in results.runs:
        if run.outcome == "failed":
            reason = " ".join(str(run.summary.get("error") or run.summary.get("status")).split()).rstrip(".")
            lr = "" if run.lr is None else f"learning rate {run.lr:g}, "
            reasons.setdefault((run.method, reason), []).append(f"{lr}{run.start} start, seed {run.seed}")
    return [
        f"Failed: {method}, {places[0] if len(places) == 1 else f'{len(places)} runs'}: {reason}."
        for (method, reason), places in reasons.items()
    ]


def counted(things: Sized, noun: str) -> str:
    """Return how many there are, such as ``1 seed`` or ``3 seeds``."""
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def spread(results: Results) -> str:
    """Return what the ± means, or that there is none."""
    if len(results.seeds) == 1:
        return "n = 1 seed: no spread."
    return f"± is the sample standard deviation over the seeds (n = {len(results.seeds)})."
