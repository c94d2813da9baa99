"""Panels of the losses: training and held-out, by objective and by source."""

from collections.abc import Sequence

from configs.objectives import is_key
from configs.terminal import visible
from train.report.curves import AT_INTERVALS, Chart, Line, charts, detail_curve, metric_lines
from train.report.panel import Panel
from train.report.read import RunData

_UNIT = "nats per token"
_PARTS = {"train": "Training loss", "valid": "Held-out loss"}


def panels(runs: Sequence[RunData]) -> list[Panel]:
    """The panels of all runs."""
    found = list[Panel]()
    for part, title in _PARTS.items():
        chart = Chart(f"losses/{part}", title, "Losses", _UNIT, is_wide=part == "train")
        lines = [metric_lines(run, loss_keys(run, part), has_cut=True) for run in runs]
        found += charts(chart, runs, lines)
    for part, title in _PARTS.items():
        chart = Chart(
            f"losses/{part}_source",
            f"{title} by source",
            "Losses",
            _UNIT,
            AT_INTERVALS,
        )
        found += charts(chart, runs, [_by_source(run, part) for run in runs])
    return found


def loss_keys(run: RunData, part: str) -> list[str]:
    """Names of a run's losses: of all tokens first, then of each objective.

    Args:
        run: the run.
        part: train or valid.
    """
    whole = f"{part}/loss"
    single = [
        key
        for key in run.metrics.keys
        if key.startswith(f"{whole}_") and is_key(key.removeprefix(f"{whole}_"))
    ]
    return [whole, *single]


def _by_source(run: RunData, part: str) -> list[Line]:
    prefix = f"{part}/loss_source/"
    return [
        Line(visible(key.removeprefix(prefix), keep=""), *detail_curve(run, key))
        for key in run.detail_columns.keys
        if key.startswith(prefix)
    ]
