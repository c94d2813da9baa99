"""The pictures of the stability study, drawn by `python -m benchmarks.plots`."""

import math
import statistics
from typing import Any

from benchmarks.stability.cells import Cell
from benchmarks.stability.outcome import final_loss, threshold
from benchmarks.stability.variants import GRADIENTS_AT, RATES, SEEDS, VARIANTS

Record = dict[str, Any]

# Told apart by colour-blind readers as well.
_COLOURS = ("#0072b2", "#56b4e9", "#009e73", "#cc79a7", "#d55e00", "#e69f00", "#000000")
_STYLES = ("-", "--", "-.", ":", "-", "--", "-")


def losses(axes: Any, record: Record) -> None:
    """Final loss over the learning rate: medians of the seeds with their range; a cross where a seed was not finite."""
    cells = _cells(record)
    top = 1.25 * max(final for cell in cells if (final := final_loss(cell)) is not None)
    for place, variant in enumerate(VARIANTS):
        xs, medians, lows, highs = [], [], [], []
        for rate in RATES:
            finals = [final_loss(c) for c in cells if (c.variant, c.rate) == (variant, rate)]
            finite = [final for final in finals if final is not None]
            x = rate * 1.07 ** (place - len(VARIANTS) / 2)  # beside one another
            if len(finite) < len(finals):
                axes.plot(x, top, marker="x", color=_COLOURS[place])
            if finite:
                xs.append(x)
                medians.append(statistics.median(finite))
                lows.append(medians[-1] - min(finite))
                highs.append(max(finite) - medians[-1])
        axes.errorbar(
            *(xs, medians),
            yerr=[lows, highs],
            label=variant,
            capsize=2,
            marker="o",
            markersize=3,
            color=_COLOURS[place],
            linestyle=_STYLES[place],
        )
    axes.axhline(
        *(statistics.fmean(map(threshold, SEEDS)),),
        color="#999999",
        linestyle=":",
        label="frequencies alone",
    )
    axes.set_xscale("log")
    axes.set_xticks(RATES, [f"{rate:g}" for rate in RATES])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("final loss (nats)")
    axes.set_title("24 layers x 32: which variants survive which rates")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))


def gradients(axes: Any, record: Record) -> None:
    """Gradient norm of the embedding, and of the rest, over the steps at one rate: medians of the seeds."""
    cells, (left, right) = _cells(record), axes
    for place, variant in enumerate(VARIANTS):
        chosen = [c for c in cells if (c.variant, c.rate) == (variant, GRADIENTS_AT)]
        for panel, key in ((left, "embedding"), (right, "rest")):
            steps = zip(*(getattr(cell, key) for cell in chosen), strict=False)
            medians = [statistics.median(values) for values in steps]
            panel.plot(
                _smooth(medians), label=variant, color=_COLOURS[place], linestyle=_STYLES[place]
            )
    for panel, title in ((left, "word embedding"), (right, "everything else")):
        panel.set_yscale("log")
        panel.set_xlabel(f"step (learning rate {GRADIENTS_AT:g}, means of 5)")
        panel.set_title(title)
    left.set_ylabel("gradient norm before the clip")
    right.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _smooth(values: list[float], width: int = 5) -> list[float]:
    """Geometric means of the last few."""
    logs = [math.log(max(value, 1e-12)) for value in values]
    return [
        math.exp(statistics.fmean(logs[max(place - width + 1, 0) : place + 1]))
        for place in range(len(logs))
    ]


def _cells(record: Record) -> list[Cell]:
    return [Cell(**values) for values in record["cells"]]
