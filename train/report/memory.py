"""Panels of the memory: its peak in every step, and what it holds at intervals."""

from collections.abc import Sequence

from train.report.curves import AT_INTERVALS, Chart, charts, detail_lines, metric_lines
from train.report.panel import Panel
from train.report.read import RunData

_GROUP = "Memory"
_PARTS = ("weights", "gradients", "optimizer", "activations", "rest")


def panels(runs: Sequence[RunData]) -> list[Panel]:
    """The panels of all runs."""
    peak = Chart("memory/peak", "Peak memory", _GROUP, "GiB", "Of the rank that has most.")
    parts = Chart(
        "memory/parts",
        "What holds the memory",
        _GROUP,
        "GiB",
        f"Each part of the rank that has most of it: they may be several ranks. {AT_INTERVALS}",
        is_stacked=True,
    )
    labels = {f"memory/{part}_gib": part for part in _PARTS}
    return [
        *charts(peak, runs, [metric_lines(run, ["memory/peak_gib"]) for run in runs]),
        *charts(parts, runs, [detail_lines(run, labels) for run in runs]),
    ]
