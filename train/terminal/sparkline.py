"""A curve in one line of text: each character is the height of a value, from the lowest to the highest that is shown."""

import math
from collections.abc import Sequence

UNICODE_LEVELS = "".join(chr(0x2581 + level) for level in range(8))
"""Blocks of one to eight eighths."""
ASCII_LEVELS = "_.:-=+*#"
NOT_FINITE = "!"


def sparkline(values: Sequence[float], levels: str = UNICODE_LEVELS) -> str:
    """Draw values, oldest first; equal ones are all at the lowest level, and one that is not finite is a "!"."""
    finite = [value for value in values if math.isfinite(value)]
    low = min(finite, default=0.0)
    # Of halves, because the difference of two finite numbers may not be finite.
    span = max(finite, default=0.0) / 2 - low / 2
    return "".join(_level(value, low, span, levels) for value in values)


def _level(value: float, low: float, span: float, levels: str) -> str:
    if not math.isfinite(value):
        return NOT_FINITE
    height = (value / 2 - low / 2) / span if span > 0 else 0.0
    return levels[min(int(height * len(levels)), len(levels) - 1)]


class Series:
    """The recent values of a metric, for a sparkline; memory is bounded.

    A column is one step at first. When there is no room for more, two columns become one, until a column is at least
    `longest` steps; from then on the oldest one goes.

    Args:
        longest: steps after which columns do not get longer.
        capacity: number of columns, even.
        keeps_peaks: a column is the largest of its values, so that no peak is lost, and not their mean.
    """

    def __init__(self, longest: int, capacity: int = 128, keeps_peaks: bool = False) -> None:
        assert capacity % 2 == 0, "columns are merged in pairs"
        self._longest = longest
        self._capacity = capacity
        self._keeps_peaks = keeps_peaks
        self._columns: list[float] = []
        self._steps = 1
        self._open: list[float] = []

    def add(self, value: float) -> None:
        """Take a value; a column with one that is not finite is not finite."""
        self._open.append(value)
        if len(self._open) < self._steps:
            return
        self._columns.append(self._merged(self._open))
        self._open = []
        if len(self._columns) <= self._capacity:
            return
        if self._steps >= self._longest:
            del self._columns[0]
            return
        # The newest one begins a column of twice the length, which is still open.
        *pairs, newest = self._columns
        self._columns = [self._merged(pairs[at : at + 2]) for at in range(0, len(pairs), 2)]
        self._open = [newest] * self._steps
        self._steps *= 2

    def newest(self, columns: int) -> list[float]:
        """At most so many of the newest columns, oldest first; a column that is not full yet counts as well."""
        shown = [*self._columns, self._merged(self._open)] if self._open else self._columns
        return shown[-columns:] if columns > 0 else []

    def _merged(self, values: Sequence[float]) -> float:
        if not all(map(math.isfinite, values)):
            return math.nan
        return max(values) if self._keeps_peaks else sum(values) / len(values)
