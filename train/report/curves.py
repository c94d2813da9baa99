"""Panels of curves over the samples seen: the kind `lines`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from configs.run_paths import DETAILS
from train.report.columns import Numbers
from train.report.panel import Panel
from train.report.read import RunData
from train.report.reduce import AROUND, Reduced, reduced

_DIGITS = 7
AT_INTERVALS = f"Measured at intervals ({DETAILS})."
"""Note of what comes from details.jsonl."""


@dataclass(frozen=True)
class Line:
    """A curve before it is reduced."""

    label: str
    x: Numbers
    y: Numbers
    is_cut: bool = False
    """True for what a rollback has cut off."""


@dataclass(frozen=True)
class Chart:
    """A panel to be: what its curves share."""

    key: str
    title: str
    group: str
    unit: str
    """Of the values, in a word or two: "nats per token"."""
    note: str = ""
    is_log: bool = False
    """True to begin with a logarithmic axis."""
    is_stacked: bool = False
    """True where the curves are parts of a whole."""
    is_wide: bool = False


def metric_lines(run: RunData, keys: Iterable[str], *, has_cut: bool = False) -> list[Line]:
    """The curves of metrics; those without a value are left out.

    Args:
        run: the run.
        keys: names of the metrics.
        has_cut: True to add what rollbacks have cut off them.
    """
    found = list[Line]()
    for key in keys:
        x, y = run.metrics.curve(key)
        if len(x):
            found.append(Line(key, x, y))
        for cut in run.cut if has_cut else ():
            x, y = cut.curve(key)
            if len(x):
                found.append(Line(key, x, y, is_cut=True))
    return found


def detail_lines(run: RunData, labels: dict[str, str]) -> list[Line]:
    """The curves of what is measured at intervals.

    Args:
        run: the run.
        labels: name of each curve by its key in details.jsonl.
    """
    return [
        Line(label, x, y)
        for key, label in labels.items()
        for x, y in [detail_curve(run, key)]
        if len(x)
    ]


def detail_curve(run: RunData, key: str) -> tuple[Numbers, Numbers]:
    """Positions and values of a number of details.jsonl; both (rows,)."""
    return run.detail_columns.curve(key)


def charts(chart: Chart, runs: Sequence[RunData], lines: Sequence[list[Line]]) -> list[Panel]:
    """Make a panel of the curves of one run; of several runs, one for each name of a curve, to compare the runs in.

    Args:
        chart: what the curves share.
        runs: all runs of the page.
        lines: the curves of each.

    Returns:
        No panel if there are no curves.
    """
    labels = list(dict.fromkeys(line.label for each in lines for line in each))
    if not labels:
        return []
    if len(runs) == 1 or len(labels) == 1:
        return [_panel(chart, chart.key, chart.title, runs, lines)]
    return [
        _panel(
            replace(chart, is_wide=chart.is_wide and number == 0),
            f"{chart.key}/{number}",
            f"{chart.title}: {label}",
            runs,
            [[line for line in each if line.label == label] for each in lines],
        )
        for number, label in enumerate(labels)
    ]


def _panel(
    chart: Chart, key: str, title: str, runs: Sequence[RunData], lines: Sequence[list[Line]]
) -> Panel:
    series = list[dict[str, Any]]()
    shown = list[Reduced]()
    num_infinite = 0
    for number, (run, each) in enumerate(zip(runs, lines, strict=True)):
        for line in each:
            found = reduced(line.x, line.y, run.exact_positions)
            if chart.is_stacked and not found.is_whole:
                # Parts of a whole have values at the same places.
                found = replace(found, x=found.mean_x, y=found.mean_y)
            series.append(_series(number, line, found))
            shown.append(found)
            num_infinite += int(np.count_nonzero(~np.isfinite(line.y)))
    left_out = _means_of(shown) if chart.is_stacked else _left_out(shown)
    notes = [chart.note, left_out, _gaps(num_infinite)]
    return Panel(
        key=key,
        title=title,
        group=chart.group,
        kind="lines",
        data={
            "unit": chart.unit,
            "log": chart.is_log,
            "stacked": chart.is_stacked,
            "series": series,
        },
        note=" ".join(note for note in notes if note),
        is_wide=chart.is_wide,
    )


def _series(number: int, line: Line, found: Reduced) -> dict[str, Any]:
    return {
        "run": number,
        "label": line.label,
        "cut": line.is_cut,
        "total": found.total,
        "x": rounded(found.x),
        "y": rounded(found.y),
        "mean_x": rounded(found.mean_x),
        "mean_y": rounded(found.mean_y),
    }


def _left_out(shown: Sequence[Reduced]) -> str:
    parts = [each for each in shown if not each.is_whole]
    if not parts:
        return ""
    largest = max(parts, key=lambda each: len(each.x))
    return (
        f"At most {len(largest.x):,} of {largest.total:,} points per curve: the extremes of each stretch, and {AROUND} "
        "rows on each side of events."
    )


def _means_of(shown: Sequence[Reduced]) -> str:
    parts = [each for each in shown if not each.is_whole]
    if not parts:
        return ""
    largest = max(parts, key=lambda each: each.total)
    return f"{largest.total:,} measurements: the means of {len(largest.x):,} stretches."


def _gaps(number: int) -> str:
    if not number:
        return ""
    return f"{number:,} value{'' if number == 1 else 's'} not finite: gaps in the curve."


def rounded(values: Numbers) -> list[float | int | None]:
    """Numbers for the page: seven digits, whole numbers as they are, None for what is not finite."""
    return [_rounded(value) for value in values.tolist()]


def _rounded(value: float) -> float | int | None:
    if not np.isfinite(value):
        return None
    if value == int(value) and abs(value) < 2**53:
        return int(value)
    return float(f"{value:.{_DIGITS}g}")
