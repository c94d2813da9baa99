"""Lines of metrics as columns of numbers."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


class Columns:
    """A table of numbers.

    Args:
        lines: one mapping of names to values for each row: numbers, "inf", "-inf", "nan", or None for what does not
            exist. A key that a line lacks does not exist there. Values of other types, and numbers that no float holds, do not exist either.
    """

    def __init__(self, lines: Sequence[Mapping[str, Any]]) -> None:
        keys: dict[str, Any] = {}
        for line in lines:
            keys.update(line)
        self._values: dict[str, Numbers] = {}
        self._exists: dict[str, NDArray[np.bool_]] = {}
        for key in keys:
            values, exists = _column([line.get(key) for line in lines])
            if exists.any():
                self._values[key], self._exists[key] = values, exists
        self.length = len(lines)

    @property
    def keys(self) -> list[str]:
        """Names of the columns that have a value, in the order of the lines."""
        return list(self._values)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def column(self, key: str) -> Numbers:
        """All rows of a column; NaN where it has no value, and where its value is NaN.

        Returns:
            (length,)
        """
        return self._values.get(key, np.full(self.length, np.nan))

    def curve(self, key: str, over: str = "samples_seen") -> tuple[Numbers, Numbers]:
        """The rows in which a value exists, whether it is finite or not.

        Returns:
            The positions of the rows, and their values; both (rows,).
        """
        exists = self._exists.get(key)
        if exists is None or over not in self:
            return np.empty(0), np.empty(0)
        return self._values[over][exists], self._values[key][exists]

    def last(self, key: str) -> float | None:
        """The last finite value of a column; None if there is none."""
        values = self.column(key)
        finite = values[np.isfinite(values)]
        return float(finite[-1]) if len(finite) else None


def _column(found: list[Any]) -> tuple[Numbers, NDArray[np.bool_]]:
    """Values of a column, NaN where there is none, and which exist."""
    if set(map(type, found)) <= {int, float, type(None)}:
        # NumPy makes NaN of None, and JSON has no other NaN: of long runs nothing else is fast enough.
        with contextlib.suppress(OverflowError):
            values = np.array(found, dtype=np.float64)
            return values, ~np.isnan(values)
    numbers = [_number(value) for value in found]
    exists = np.array([value is not None for value in numbers], dtype=np.bool_)
    return np.array(numbers, dtype=np.float64), exists


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:  # an integer of hundreds of digits
            return None
    return float(value) if value in ("inf", "-inf", "nan") else None
