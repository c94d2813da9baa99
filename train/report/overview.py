"""What stands at the top of the page: each run's state, its position and its current figures."""

from typing import Any

import numpy as np

from configs.objectives import BUILT_IN
from configs.terminal import visible
from train.report.columns import Numbers
from train.report.curves import rounded
from train.report.goodput_panels import shown_share
from train.report.losses import loss_keys
from train.report.read import RunData

_FIGURES = (
    ("optim/lr", "Learning rate"),
    ("optim/grad_norm", "Gradient norm"),
    ("speed/tokens_per_second", "Tokens per second"),
    ("speed/mfu", "MFU"),
    ("memory/peak_gib", "Peak memory, GiB"),
)


def run_facts(run: RunData, number: int) -> dict[str, Any]:
    """What the page says of a run.

    Args:
        run: the run.
        number: its place among the runs, which chooses its colour.
    """
    position = {
        name: int(run.metrics.last(name) or 0) for name in ("samples_seen", "tokens_seen", "step")
    }
    total = run.total_samples
    return {
        "name": run.name,
        "folder": visible(str(run.folder), keep=""),
        "color": number,
        "state": run.state,
        "message": visible(run.status.message, keep="") if run.status else "",
        **position,
        "total_samples": total,
        "seconds": _sum(run.metrics.column("speed/seconds_per_step")),
        "seconds_left": _left(run, total),
        "last_checkpoint": _last_checkpoint(run),
        "figures": _figures(run),
    }


def _left(run: RunData, total: int | None) -> float | None:
    """Seconds to the end at the pace of the last steps; None where either is not known, and at the end."""
    samples = run.metrics.column("samples_seen")
    if total is None or not total > samples[-1] > 0:
        return None
    seconds = run.metrics.column("speed/seconds_per_step")
    first = max(0, len(samples) - 200)
    before = samples[first - 1] if first else 0.0
    spent = _sum(seconds[first:])
    done = float(samples[-1] - before)
    return (total - float(samples[-1])) * spent / done if done > 0 and spent > 0 else None


def _sum(seconds: Numbers) -> float:
    """The sum of what is a duration."""
    return float(seconds[(seconds >= 0) & (seconds < 2**40)].sum())


def _last_checkpoint(run: RunData) -> dict[str, Any] | None:
    for event in reversed(run.placed_events):
        if event.kind == "checkpoint":
            return {"samples_seen": int(event.at), "time": event.time}
    return None


def _figures(run: RunData) -> list[dict[str, Any]]:
    found = [("train/loss", "Training loss")]
    found += [(key, _held_out(key)) for key in loss_keys(run, "valid")]
    figures = list[dict[str, Any]]()
    for key, label in (*found, *_FIGURES):
        x, y = run.metrics.curve(key)
        if len(x):
            # A loss that has just become nan must not look like the last one that was finite.
            shown = rounded(y[-1:])[0] if np.isfinite(y[-1]) else str(y[-1])
            figures.append({"key": key, "label": label, "value": shown})
    spent = run.goodput
    if spent is not None and spent.share is not None:
        share = shown_share(spent.share)
        figures.append({"key": "goodput", "label": "Goodput", "value": share})
    return figures


def _held_out(key: str) -> str:
    objective = key.removeprefix("valid/loss").removeprefix("_")
    # One of a package is shown by its key: the page needs no package of the run's.
    label = next((each.label for each in BUILT_IN if each.key == objective), objective)
    return f"Held-out loss, {label}" if label else "Held-out loss"
