"""Heat maps of what is measured in every layer: norms of gradients and weights, and the size of activations."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from train.report.columns import Columns
from train.report.curves import AT_INTERVALS, Chart, Line, charts, rounded
from train.report.panel import Panel
from train.report.read import RunData

MAX_COLUMNS = 400
"""Positions of a heat map; of a longer one, each stretch is shown by its greatest value."""
_GROUP = "Layers"
_MAPS = {
    "layers/gradient_norm": "Gradient norm by layer",
    "layers/weight_norm": "Weight norm by layer",
    "layers/activation_rms": "Activations by layer (root mean square)",
}
_PARTS = ("embedding", "final_norm")


def panels(runs: Sequence[RunData]) -> list[Panel]:
    """The panels of all runs: a heat map for each run and measure."""
    found = list[Panel]()
    for key, title in _MAPS.items():
        for number, run in enumerate(runs):
            panel = _heat_map(run, number, key, title, is_alone=len(runs) == 1)
            found += [] if panel is None else [panel]
    chart = Chart("layers/parts", "Weight norm of the other parts", _GROUP, "")
    return found + charts(chart, runs, [_parts(run) for run in runs])


def _heat_map(run: RunData, number: int, key: str, title: str, *, is_alone: bool) -> Panel | None:
    positions, values = layer_values(run, key)
    if not len(positions):
        return None
    starts = np.linspace(0, len(positions), min(len(positions), MAX_COLUMNS) + 1).astype(np.int64)
    # An infinity must not hide the finite values of its stretch; a stretch without any is a gap.
    finite = np.where(np.isfinite(values), values, -np.inf)
    greatest = np.maximum.reduceat(finite, starts[:-1], axis=0)
    notes = [AT_INTERVALS]
    if len(positions) > MAX_COLUMNS:
        notes.append(
            f"{MAX_COLUMNS:,} stretches of {len(positions):,} measurements: the greatest value of each."
        )
    num_missing = int(np.count_nonzero(~np.isfinite(values)))
    if num_missing:
        notes.append(f"Left out: {num_missing:,} of {values.size:,} values, which are not finite.")
    layers = values.shape[1]
    return Panel(
        key=key if is_alone else f"{key}/{number}",
        title=title if is_alone else f"{title}: {run.name}",
        group=_GROUP,
        kind="heatmap",
        data={
            "x": rounded(positions[starts[1:] - 1]),
            "values": [rounded(row) for row in greatest.T],
        },
        note=" ".join(notes),
        columns=("layer", "first", "last", "least", "greatest"),
        rows=[[layer, *_ends(values[:, layer])] for layer in range(layers)],
    )


def layer_values(run: RunData, key: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """What was measured in every layer.

    Args:
        run: the run.
        key: of a list of details.jsonl.

    Returns:
        Positions (rows,), and values (rows, layers): NaN where there is none. Rows with another number of layers than
        the first are left out.
    """
    rows = [
        (line.get("samples_seen", 0), value)
        for line in run.details
        if isinstance(value := line.get(key), list) and value
    ]
    rows = [row for row in rows if len(row[1]) == len(rows[0][1])]
    if not rows:
        return np.empty(0), np.empty((0, 0))
    columns = Columns(
        [{str(layer): _plain(each) for layer, each in enumerate(value)} for _, value in rows]
    )
    values = np.stack([columns.column(str(layer)) for layer in range(len(rows[0][1]))], axis=1)
    return np.array([position for position, _ in rows], dtype=np.float64), values


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, float, str)) else None


def _ends(column: np.ndarray[Any, Any]) -> list[float | int | None]:
    known = column[np.isfinite(column)]
    if not len(known):
        return [None] * 4
    return rounded(np.array([known[0], known[-1], known.min(), known.max()]))


def _parts(run: RunData) -> list[Line]:
    lines = [
        {"samples_seen": line.get("samples_seen", 0), **value}
        for line in run.details
        if isinstance(value := line.get("parts/weight_norm"), dict)
    ]
    columns = Columns(lines)
    return [Line(part, *columns.curve(part)) for part in _PARTS if part in columns]
