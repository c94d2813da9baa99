"""Reduce a long curve to few points without losing its extremes.

The rows are divided into buckets of equal length, of which the least and the greatest value stay at their places: a
spike of one step in a million is in the picture. Rows around events stay as they are. Means of the buckets are for smoothed
curves, which would be wrong if they were made of extremes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.report.columns import Numbers

MAX_POINTS = 4_000
"""Points of a curve beside the exact rows around events."""
AROUND = 8
"""Rows on each side of an event that stay as they are."""
_FEWEST_PER_BUCKET = 3


@dataclass(frozen=True)
class Reduced:
    """A curve for the page."""

    x: Numbers
    y: Numbers
    """NaN where the curve has a value that is not finite: a gap."""
    total: int
    """Rows of the whole curve."""
    mean_x: Numbers
    """Positions of `mean_y`, the ends of the buckets; empty if all rows are there."""
    mean_y: Numbers

    @property
    def is_whole(self) -> bool:
        """True if no row was left out."""
        return len(self.x) == self.total


def reduced(x: Numbers, y: Numbers, events: Sequence[float] = ()) -> Reduced:
    """Reduce a curve.

    Args:
        x: (rows,) positions, which do not fall.
        y: (rows,) values.
        events: positions around which rows stay.

    Returns:
        At most MAX_POINTS points and the rows around events. Of values that are not finite, the first of each bucket
        stays as a gap.
    """
    is_finite = np.isfinite(y)
    shown = np.where(is_finite, y, np.nan)
    if len(x) <= MAX_POINTS:
        return Reduced(x, shown, len(x), np.empty(0), np.empty(0))
    # The first and the last row stay; each bucket keeps at most three rows: its extremes, and a gap.
    num_buckets = (MAX_POINTS - 2) // _FEWEST_PER_BUCKET
    if is_finite.all():
        num_buckets = (MAX_POINTS - 2) // 2
    edges = np.linspace(0, len(x), num_buckets + 1).astype(np.int64)
    low = np.where(is_finite, y, np.inf)
    high = np.where(is_finite, y, -np.inf)
    kept = [0, len(x) - 1]
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        kept.append(begin + int(low[begin:end].argmin()))
        kept.append(begin + int(high[begin:end].argmax()))
        gap = int(is_finite[begin:end].argmin())
        if not is_finite[begin + gap]:
            kept.append(begin + gap)
    rows = np.unique(np.concatenate([np.array(kept), _near(x, events)]))
    return Reduced(x[rows], shown[rows], len(x), *_means(x, y))


def _means(x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
    """Ends and means of stretches, which depend on the number of rows alone: curves of the same rows have the same."""
    edges = np.linspace(0, len(x), MAX_POINTS // 2 + 1).astype(np.int64)
    is_finite = np.isfinite(y)
    sums = np.add.reduceat(np.where(is_finite, y, 0.0), edges[:-1])
    counts = np.add.reduceat(is_finite.astype(np.float64), edges[:-1])
    with np.errstate(invalid="ignore", divide="ignore"):
        return x[edges[1:] - 1], sums / counts


def _near(x: Numbers, events: Sequence[float]) -> NDArray[np.int64]:
    """Row numbers within AROUND rows of the events."""
    if not len(events):
        return np.empty(0, dtype=np.int64)
    places = np.searchsorted(x, np.unique(np.array(events, dtype=np.float64)))
    rows = places[:, None] + np.arange(-AROUND, AROUND + 1)[None, :]
    return np.unique(np.clip(rows, 0, len(x) - 1)).astype(np.int64)
