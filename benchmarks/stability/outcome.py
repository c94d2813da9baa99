"""What became of a cell, judged by losses that are known without a model."""

import math
import statistics
from collections.abc import Sequence
from functools import cache

from benchmarks.stability.cells import Cell
from benchmarks.stability.text import chain
from benchmarks.stability.variants import RATES, SOFTMAX, SOFTMAX_RATES, STEPS, VARIANTS, WORDS
from configs.load import load_config

LAST = 10
"""Steps whose mean loss is the final one."""
WARM_UP = STEPS // 10
"""Steps of the default warm-up, a tenth of a run."""


def final_loss(cell: Cell) -> float | None:
    """Mean loss of the last steps; None: training ended at a number that is not finite."""
    return statistics.fmean(cell.losses[-LAST:]) if cell.is_finite else None


@cache
def threshold(seed: int) -> float:
    """The loss of a model that knows how often each token occurs, and nothing else: what a surviving cell is below."""
    (words, *_) = WORDS.values()
    return chain(load_config([*words, f"seed={seed}"])).unigram


def survives(cell: Cell) -> bool:
    """True if a cell stayed finite, and ends below the unigram loss of its text."""
    final = final_loss(cell)
    return final is not None and final < threshold(cell.seed)


def gradient_rows(cells: Sequence[Cell], rate: float) -> list[str]:
    """The table of gradient norms at one rate, in fp32: medians over the seeds.

    Columns: norm of the embedding's gradient and of everything else's at the first step; the same after the warm-up, as
    medians over the steps; the embedding's over the rest's there; and the largest total norm over the median one.
    """
    found = ["| variant | first: embedding | rest | later: embedding | rest | ratio | largest |"]
    found.append("| --- |" + " --- |" * 6)
    for variant in VARIANTS:
        chosen = [c for c in cells if (c.variant, c.rate) == (variant, rate)]
        numbers = [_gradients(cell) for cell in chosen if len(cell.losses) > WARM_UP]
        medians = [statistics.median(column) for column in zip(*numbers, strict=True)]
        found.append(f"| {variant} | " + " | ".join(f"{value:.2g}" for value in medians) + " |")
    return found


def _gradients(cell: Cell) -> tuple[float, ...]:
    embedding, rest = cell.embedding[WARM_UP:], cell.rest[WARM_UP:]
    totals = [math.hypot(*pair) for pair in zip(embedding, rest, strict=True)]
    ratios = [one / other for one, other in zip(embedding, rest, strict=True)]
    later = (statistics.median(embedding), statistics.median(rest), statistics.median(ratios))
    return (cell.embedding[0], cell.rest[0], *later, max(totals) / statistics.median(totals))


def rows(cells: Sequence[Cell]) -> list[str]:
    """The table: of each variant and rate the surviving seeds, and the median of the final losses."""
    found: list[str] = []
    for variants, rates in ((VARIANTS, RATES), (SOFTMAX, SOFTMAX_RATES)):
        found.append("| variant | " + " | ".join(f"{rate:g}" for rate in rates) + " |")
        found.append("| --- |" + " --- |" * len(rates))
        for variant in variants:
            texts = [
                _text([c for c in cells if (c.variant, c.rate) == (variant, r)]) for r in rates
            ]
            found.append(f"| {variant} | " + " | ".join(texts) + " |")
        found.append("")
    return found


def _text(cells: Sequence[Cell]) -> str:
    finals = [final for final in map(final_loss, cells) if final is not None]
    median = f"{statistics.median(finals):.2f}" if finals else "-"
    return f"{sum(map(survives, cells))}/{len(cells)}, {median}"
