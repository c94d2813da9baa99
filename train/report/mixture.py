"""Panels of the data: the mixture of sources, the share of targets, and the position in the stream."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from configs.terminal import visible
from data_pipeline.mixing.mixture import Mixture, stages_of
from train.report.columns import Numbers
from train.report.curves import Chart, Line, charts, metric_lines
from train.report.panel import Panel
from train.report.read import RunData

_GROUP = "Data"
_RAMP_POINTS = 9


def panels(runs: Sequence[RunData]) -> list[Panel]:
    """The panels of all runs."""
    targets = Chart(
        "data/targets",
        "Share of target tokens",
        _GROUP,
        "share",
        "Of the tokens of a step: those in blanks, whose loss counts.",
    )
    drawn = Chart(
        "data/left_out",
        "Samples of the stream that were left out so far",
        _GROUP,
        "samples",
        "Drawn less trained: ranges of data.skip_samples, and data that a rollback has left out.",
    )
    mixture = Chart(
        "data/mixture",
        "Mixture asked for",
        _GROUP,
        "share of the samples",
        "By data.stages of the configuration.",
        is_stacked=True,
    )
    return [
        *_sources(runs),
        *charts(mixture, runs, [_mixture(run) for run in runs]),
        *charts(
            targets, runs, [metric_lines(run, ["data/target_tokens_fraction"]) for run in runs]
        ),
        *charts(drawn, runs, [_left_out(run) for run in runs]),
    ]


def _left_out(run: RunData) -> list[Line]:
    x, drawn = run.metrics.curve("data/samples_drawn")
    left_out = drawn - x
    return [Line("samples left out", x, left_out)] if len(x) and left_out.any() else []


def _paths(run: RunData, key: str = "data.paths") -> list[str]:
    paths = run.setting(key)
    return [visible(str(path), keep="") for path in paths] if isinstance(paths, list) else []


def _mixture(run: RunData) -> list[Line]:
    """The shares of the sources along the run; nothing for a mixture that does not change."""
    paths, rows = _paths(run), run.setting("data.stages")
    ramp = run.setting("data.stage_ramp_samples") or 0
    if len(paths) < 2 or not isinstance(rows, list) or not rows:
        return []
    try:
        mixture = Mixture(stages_of(rows, len(paths)), int(ramp))
        drawn = _turns(mixture, run)
        shares = np.array([mixture.shares_at(int(index)) for index in drawn])
    except (AssertionError, ValueError, TypeError, ArithmeticError):  # rows that no start takes
        return []
    seen = np.interp(drawn, *_drawn_to_seen(run))
    return [Line(path, seen, shares[:, number]) for number, path in enumerate(paths)]


def _turns(mixture: Mixture, run: RunData) -> Numbers:
    """Drawn samples between which the shares are straight lines."""
    end = run.metrics.last("data/samples_drawn") or run.metrics.last("samples_seen") or 0.0
    turns = {0.0, end}
    for first, _ in mixture.stages:
        ramp = np.linspace(first, first + mixture.ramp_samples, _RAMP_POINTS)
        turns |= {float(first - 1), *(ramp.tolist())}
    return np.array(sorted(turn for turn in turns if 0 <= turn <= end))


def _drawn_to_seen(run: RunData) -> tuple[Numbers, Numbers]:
    seen, drawn = run.metrics.curve("data/samples_drawn")
    if not len(seen):
        seen = drawn = run.metrics.column("samples_seen")
    return np.concatenate([[0.0], drawn]), np.concatenate([[0.0], seen])


def _shown(weight: Any) -> Any:
    """A weight for a table: the page has no infinities, and no numbers longer than those of a float."""
    is_number = isinstance(weight, (int, float)) and abs(weight) < 2**53
    return weight if is_number else visible(str(weight), keep="")


def _sources(runs: Sequence[RunData]) -> list[Panel]:
    rows: list[list[Any]] = []
    for run in runs:
        weights = run.setting("data.weights")
        for number, path in enumerate(_paths(run)):
            has_weight = isinstance(weights, list) and number < len(weights)
            rows.append([run.name, path, _shown(weights[number]) if has_weight else "by size"])
        rows += [[run.name, path, "instructions"] for path in _paths(run, "data.instructions")]
    if not rows:
        return []
    columns = ("run", "source", "weight")
    if any(run.setting("data.stages") for run in runs):
        columns = ("run", "source", "weight outside stages")
    return [
        Panel(
            key="data/sources",
            title="Sources",
            group=_GROUP,
            kind="table",
            data={},
            columns=columns,
            rows=rows,
        )
    ]
