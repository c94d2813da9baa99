"""Panels of the optimiser: learning rate, gradient norms, loss scale, steps left out, embedding shrink, batch size."""

from collections.abc import Sequence

from train.report.curves import Chart, charts, metric_lines
from train.report.panel import Panel
from train.report.read import RunData

_GROUP = "Optimisation"
_CHARTS = (
    (
        Chart("optimisation/gradient_norm", "Gradient norm", _GROUP, "", "Before clipping."),
        ("optim/grad_norm", "optim/grad_norm_embedding"),
    ),
    (Chart("optimisation/lr", "Learning rate", _GROUP, ""), ("optim/lr",)),
    (
        Chart("optimisation/loss_scale", "Loss scale", _GROUP, "", "Of fp16.", is_log=True),
        ("optim/loss_scale",),
    ),
    (
        Chart(
            "optimisation/skipped",
            "Steps left out so far",
            _GROUP,
            "steps",
            "Updates that were left out: an overflow, or a gradient or loss that was not finite.",
        ),
        ("optim/skipped_steps",),
    ),
    (
        Chart(
            "optimisation/embedding_shrink",
            "Embedding gradient shrink",
            _GROUP,
            "factor",
            "Factor of the embedding's gradient.",
        ),
        ("optim/embedding_shrink",),
    ),
    (
        Chart("optimisation/batch_size", "Global batch size", _GROUP, "samples"),
        ("optim/global_batch_size",),
    ),
)
# Where what a rollback has cut off shows why.
_WITH_CUT = ("optimisation/gradient_norm", "optimisation/loss_scale")


def panels(runs: Sequence[RunData]) -> list[Panel]:
    """The panels of all runs."""
    return [
        panel
        for chart, keys in _CHARTS
        for panel in charts(
            chart, runs, [metric_lines(run, keys, has_cut=chart.key in _WITH_CUT) for run in runs]
        )
    ]
