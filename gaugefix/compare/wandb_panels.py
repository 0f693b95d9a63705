"""The panels of the W&B report: those of the local report, as far as W&B has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

STEP = "trainer/global_step"
GROUP = "Group"  # of a run: <recipe>/<method>
SYMMETRIES = "gauge/.+/drift"  # gauge/<symmetry>/drift, such as gauge/net.0:scale/drift
COLUMNS = (
    "config:method.value",
    "config:lr.value",
    "config:start.value",
    "config:seed.value",
    "summary:val_acc_best",
    "summary:val_loss_final",
    "summary:gauge_drift_final",
    "summary:gauge_residual_max",
    "summary:overhead_pct",
    "summary:diverged",
)
"""Of the table of runs, from the left."""


def blocks(api: Any, place: Mapping[str, str], runs: str, pages: str) -> list[Any]:
    """Return the blocks of the report, each with a sentence that says what to look for.

    Args:
        api: the module ``wandb_workspaces.reports.v2``.
        place: ``entity`` and ``project`` of the runs.
        runs: which runs to show, in the language of ``wandb_workspaces.expr``; empty for all.
        pages: which runs hold the page of a local report.
    """

    def section(title: str, sentence: str, panels: Sequence[Any], **settings: Any) -> list[Any]:
        given = {"name": title, "filters": runs, **place, **settings}
        grid = api.PanelGrid(runsets=[api.Runset(**given)], panels=list(panels))
        return [api.H2(title), api.P(sentence), grid]

    return [
        *section(
            "Runs",
            "Grouped by recipe and method: open a group for its runs. A diverged run ended with a loss that is not "
            "finite; its other numbers are those of its last step.",
            [
                bars(api, "Best validation accuracy", "val_acc_best", 0),
                bars(api, "Final validation loss", "val_loss_final", 12),
                api.RunComparer(diff_only="split", layout=api.Layout(x=0, y=8, w=24, h=10)),
            ],
            groupby=["group"],
            pinned_columns=[COLUMNS[0]],
            visible_columns=list(COLUMNS[1:]),
            column_order=list(COLUMNS),
        ),
        *section(
            "Loss",
            "Mean of each method, with a band from the least to the greatest of its runs. Runs at several learning "
            "rates share one band too: a report made with --where lr=0.03 shows the spread of the seeds alone.",
            [
                curves(api, "Validation loss", "val/loss", 0, 0),
                curves(api, "Training loss", "train/loss", 12, 0),
                curves(api, "Validation accuracy", "val/acc", 0, 9, log=False),
            ],
        ),
        *section(
            "Gauge",
            "The drift is the distance to the slice along the orbit, the residual how far its equations are from "
            "being met. Both fall at a projection and grow until the next. A symmetry whose drift stays high moves "
            "along its orbit; 'Local report' below has a map of layers and steps.",
            [
                curves(api, "Drift", "gauge/drift", 0, 0),
                curves(api, "Residual of the slice", "gauge/residual", 12, 0),
                curves(api, "Drift before each projection", "gauge/drift_before", 0, 9),
                curves(api, "Drift after each projection", "gauge/drift_after", 12, 9),
                api.LinePlot(
                    title="Drift of each symmetry, all runs",
                    x=STEP,
                    metric_regex=SYMMETRIES,
                    log_y=True,
                    title_x="optimizer step",
                    max_runs_to_show=100,
                    layout=api.Layout(x=0, y=18, w=24, h=9),
                ),
            ],
        ),
        *section(
            "Learning rate × method",
            "Each point is a run. A method whose loss stays low further to the right allows larger learning rates. "
            "Runs whose loss is not finite have no point; they are in the table.",
            [
                scatter(api, "Final validation loss against learning rate", api.Config("lr"), "val_loss_final", 0),
                scatter(api, "Drift against learning rate", api.Config("lr"), "gauge_drift_final", 12),
                parallel(api),
            ],
            groupby=[],
        ),
        *section(
            "Cost",
            "Time spent in gaugefix in per cent of the training without it; evaluations of the field, for a neural "
            "ODE only. What a method gains is worth its cost towards the lower left.",
            [
                bars(api, "Overhead in per cent", "overhead_pct", 0),
                bars(api, "Evaluations of the field", "nfe", 12),
                scatter(api, "Loss against overhead", api.SummaryMetric("overhead_pct"), "val_loss_final", 0, 8),
                scatter(api, "Loss against drift", api.SummaryMetric("gauge_drift_final"), "val_loss_final", 12, 8),
            ],
        ),
        *section(
            "Local report",
            "The page that gaugefix compare wrote, as it was sent with --wandb; empty if none was.",
            [
                api.MediaBrowser(
                    title="report.html", media_keys=["report"], num_columns=1, layout=api.Layout(x=0, y=0, w=24, h=24)
                )
            ],
            filters=pages,
        ),
    ]


def curves(api: Any, title: str, metric: str, x: int, y: int, log: bool = True) -> Any:
    """Return one metric against the optimizer step: for each method the mean of its runs and the band they fill."""
    return api.LinePlot(
        title=title,
        x=STEP,
        y=[metric],
        log_y=log,
        title_x="optimizer step",
        groupby=GROUP,
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
        max_runs_to_show=100,
        layout=api.Layout(x=x, y=y, w=12, h=9),
    )


def bars(api: Any, title: str, metric: str, x: int) -> Any:
    """Return the mean of a number at the end of the runs, and its standard deviation, a bar for each method."""
    return api.BarPlot(
        title=title,
        metrics=[metric],
        groupby=GROUP,
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
        max_runs_to_show=100,
        layout=api.Layout(x=x, y=0, w=12, h=8),
    )


def scatter(api: Any, title: str, across: Any, metric: str, x: int, y: int = 0) -> Any:
    """Return a number at the end of each run against a setting or another such number, on logarithmic axes."""
    return api.ScatterPlot(
        title=title,
        x=across,
        y=api.SummaryMetric(metric),
        log_x=True,
        log_y=True,
        legend_template="${run:group}",
        layout=api.Layout(x=x, y=y, w=12, h=9),
    )


def parallel(api: Any) -> Any:
    """Return parallel coordinates over what is swept and what comes out."""
    column = api.ParallelCoordinatesPlotColumn
    return api.ParallelCoordinatesPlot(
        title="Settings and results",
        columns=[
            column(api.Config("method"), display_name="method"),
            column(api.Config("lr"), display_name="learning rate", log=True),
            column(api.Config("start"), display_name="start"),
            column(api.Config("seed"), display_name="seed"),
            column(api.SummaryMetric("gauge_drift_final"), display_name="drift", log=True),
            column(api.SummaryMetric("overhead_pct"), display_name="overhead %"),
            column(api.SummaryMetric("val_loss_final"), display_name="validation loss", log=True),
        ],
        layout=api.Layout(x=0, y=9, w=24, h=10),
    )
