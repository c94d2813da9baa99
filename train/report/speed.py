"""Panels of the throughput: tokens per second, MFU and HFU, the step's time and its parts, and its spread over the ranks."""

from collections.abc import Sequence

from train.report.curves import AT_INTERVALS, Chart, charts, detail_lines, metric_lines
from train.report.panel import Panel
from train.report.read import RunData

_GROUP = "Throughput"
_CHARTS = (
    (
        Chart("throughput/tokens", "Tokens per second", _GROUP, "tokens/s", "Of all ranks."),
        ("speed/tokens_per_second",),
    ),
    (
        Chart(
            "throughput/utilisation",
            "MFU and HFU",
            _GROUP,
            "share of the peak",
            "MFU counts the operations of the model alone, HFU those of recomputation as well. Both count attention as "
            "dense and a logit for every token, as published figures do.",
        ),
        ("speed/mfu", "speed/hfu"),
    ),
    (
        Chart("throughput/tflops", "TFLOP/s of a device", _GROUP, "TFLOP/s"),
        ("speed/tflops_per_gpu",),
    ),
    (
        Chart("throughput/step", "Time of a step", _GROUP, "seconds"),
        ("speed/seconds_per_step",),
    ),
    (
        Chart(
            "throughput/ranks",
            "Own time of the slowest and the fastest rank",
            _GROUP,
            "seconds",
            "Without the waits for other ranks.",
        ),
        ("speed/rank_seconds_max", "speed/rank_seconds_min"),
    ),
    (
        Chart("throughput/waits", "Waits for data, checkpoints and evaluation", _GROUP, "seconds"),
        ("speed/data_wait_seconds", "speed/checkpoint_blocked_seconds", "speed/evaluation_seconds"),
    ),
)
_COMPUTED = ("speed/mfu_computed", "speed/hfu_computed", "attention/computed_fraction")
_PARTS = (
    "forward",
    "backward",
    "optimizer",
    "communication",
    "bubble",
    "data",
    "checkpoint",
    "evaluation",
    "logging",
    "rest",
)


def panels(runs: Sequence[RunData]) -> list[Panel]:
    """The panels of all runs."""
    found = [
        panel
        for chart, keys in _CHARTS
        for panel in charts(chart, runs, [metric_lines(run, keys) for run in runs])
    ]
    computed = Chart(
        "throughput/computed",
        "MFU and HFU of what is computed",
        _GROUP,
        "share",
        "Of the pairs of tokens that attention computes, whose share of all pairs is shown too, and the logits of "
        f"targets alone. {AT_INTERVALS}",
    )
    found += charts(
        computed, runs, [detail_lines(run, {key: key for key in _COMPUTED}) for run in runs]
    )
    split = Chart(
        "throughput/split",
        "Where the time of a step goes",
        _GROUP,
        "seconds",
        f"Averages over the ranks; the parts add up to the step. {AT_INTERVALS}",
        is_stacked=True,
        is_wide=True,
    )
    labels = {f"time/{part}": part for part in _PARTS}
    return found + charts(split, runs, [detail_lines(run, labels) for run in runs])
