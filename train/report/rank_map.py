"""The panel of the ranks: the tp x pp x dp grid on its nodes, with each rank's own time in a step, the slow ones marked."""

import statistics
from collections.abc import Sequence
from typing import Any

from configs.terminal import visible
from train.report.layout import Layout, last_layout
from train.report.panel import Panel
from train.report.read import RunData

_NOTE = (
    "Each cell is a rank of the last attempt: columns are the pipeline stages and in each its tensor-parallel ranks, rows are "
    "the replicas; a frame is a node."
)
_SECONDS = "The colour is what the rank itself worked on step {step:,}, without waiting for others."
_SLOW = "Ranks with a triangle were named as slow and still are."
_UNKNOWN = "The events of an older program do not name the nodes."


def panels(runs: Sequence[RunData]) -> list[Panel]:
    """A panel for each run of several ranks whose events say how they were laid out."""
    is_one = len(runs) == 1
    found = [(number, run, last_layout(run.events)) for number, run in enumerate(runs)]
    return [
        _panel(run, layout, "ranks" if is_one else f"ranks/{number}", is_one=is_one)
        for number, run, layout in found
        if layout is not None and layout.world_size > 1
    ]


def _panel(run: RunData, layout: Layout, key: str, *, is_one: bool) -> Panel:
    seconds, step = _seconds(run.details, layout)
    title = f"Ranks on nodes: tp {layout.tp} x pp {layout.pp} x dp {layout.dp}"
    notes = [
        _NOTE,
        *([_SECONDS.format(step=step)] if seconds else []),
        *([_SLOW] if layout.slow else []),
        *([] if layout.nodes else [_UNKNOWN]),
    ]
    return Panel(
        key=key,
        title=title if is_one else f"{title}: {run.name}",
        group="Pictures",
        kind="ranks",
        data={
            "tp": layout.tp,
            "pp": layout.pp,
            "dp": layout.dp,
            "nodes": [[visible(name, keep=""), *ranks] for name, *ranks in layout.nodes],
            "seconds": seconds,
            "step": step,
            "slow": [
                {"rank": rank, "excess": excess}
                for rank, excess in sorted(layout.slow.items())
                if rank < layout.world_size
            ],
        },
        note=" ".join(notes),
        columns=("node", "ranks", "stages", "replicas", "own seconds, median", "longest", "slow"),
        rows=[_row(layout, seconds, *each) for each in _stretches(layout)],
        is_wide=layout.world_size > 64,
    )


def _seconds(
    details: Sequence[dict[str, Any]], layout: Layout
) -> tuple[list[float | None] | None, int | None]:
    """The newest times of the ranks since the attempt began, and their step; None, None if there are none."""
    for line in reversed(details):
        if line.get("samples_seen", 0) <= layout.samples_seen:
            break
        values = line.get("ranks/seconds")
        if isinstance(values, list) and len(values) == layout.world_size:
            return [_finite(value) for value in values], int(line.get("step", 0))
    return None, None


def _finite(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(f"{value:.5g}") if is_number and 0 <= value < 2**40 else None


def _stretches(layout: Layout) -> list[tuple[str, int, int]]:
    """What the table has a row for: the nodes, or the ranks of each stage where they are not known."""
    if layout.nodes:
        return list(layout.nodes)
    size = layout.tp * layout.dp
    return [("", stage * size, size) for stage in range(layout.pp)]


def _row(
    layout: Layout, seconds: Sequence[float | None] | None, name: str, first: int, count: int
) -> list[Any]:
    ranks = range(first, first + count)
    stages = {rank // (layout.tp * layout.dp) for rank in ranks}
    replicas = {rank // layout.tp % layout.dp for rank in ranks}
    known = [value for rank in ranks if seconds and (value := seconds[rank]) is not None]
    slow = [f"{rank} (+{100 * layout.slow[rank]:.0f} %)" for rank in ranks if rank in layout.slow]
    return [
        visible(name, keep="") or "not recorded",
        _range(set(ranks)),
        _range(stages),
        _range(replicas),
        statistics.median(known) if known else None,
        max(known) if known else None,
        ", ".join(slow),
    ]


def _range(numbers: set[int]) -> str:
    first, last = min(numbers), max(numbers)
    if len(numbers) == last - first + 1:
        return str(first) if first == last else f"{first} to {last}"
    return ", ".join(map(str, sorted(numbers)))
