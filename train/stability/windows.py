"""Windows of recent values, judged by median and median absolute deviation (MAD), for many signals at once.

A signal is the logarithm of a positive figure. Outliers stay out of the window, so that one spike does not hide the
next; a signal that stays outside for long has a new level, with which the window begins anew.

While a window is short - at the start of a run, and after a declared change - its first or its last values, whichever are
lower, set a provisional level, and only what lies far above that is an outlier. So a change that moves the signal raises no
alarm, and an explosion right after it does.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FIRST = 8
"""Values that set the provisional level; the first ones after a change are not judged."""


@dataclass(frozen=True)
class WindowSettings:
    """How signals are judged."""

    size: int
    """Values that a window keeps."""
    least: int
    """Values from which on a window is judged by its own spread."""
    limit: float
    """MADs above the median from which on a value is an outlier."""
    provisional: float
    """Excess over the provisional level from which on a value is an outlier, in log units."""
    persistence: int
    """Outliers in a row after which they are the new level."""
    floor: float
    """Smallest MAD in log units, for signals that hardly vary."""


class RobustWindows:
    """One window per signal.

    Args:
        num_signals: number of signals.
        settings: how they are judged.
    """

    def __init__(self, num_signals: int, settings: WindowSettings) -> None:
        self._settings = settings
        # float32, as it is stored: a resumed run judges by the same values.
        self._values = np.full((num_signals, settings.size), np.nan, np.float32)
        self._num_values = np.zeros(num_signals, np.int64)
        self._outside = np.full((num_signals, settings.persistence), np.nan, np.float32)
        self._num_outside = np.zeros(num_signals, np.int64)
        self._known: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def usual(self) -> np.ndarray:
        """(signals,) level that each is compared to, in log units; NaN: none is known."""
        return self._statistics()[0]

    def scores(self, logs: np.ndarray) -> np.ndarray:
        """Judge values without taking them in.

        Args:
            logs: (signals,) logarithms; NaN: there is none.

        Returns:
            (signals,) deviation above the usual level, in MADs; NaN where nothing can be said.
        """
        usual, spread = self._statistics()
        return (logs - usual) / spread

    def observe(self, logs: np.ndarray) -> np.ndarray:
        """Take in values, as far as they are no outliers; returns their scores."""
        scores = self.scores(logs)
        settings = self._settings
        is_there = ~np.isnan(logs)
        is_outside = is_there & (scores > settings.limit)
        inside = np.flatnonzero(is_there & ~is_outside)
        if inside.size:
            self._values[inside, self._num_values[inside] % settings.size] = logs[inside]
            self._num_values[inside] += 1
            self._num_outside[inside] = 0
            self._known = None
        for signal in np.flatnonzero(is_outside):
            self._keep_outside(int(signal), logs[signal])
        return scores

    def reset(self, signals: Sequence[int]) -> None:
        """Forget signals whose level is about to change on purpose."""
        chosen = list(signals)
        self._values[chosen] = np.nan
        self._num_values[chosen] = 0
        self._num_outside[chosen] = 0
        self._known = None

    def _keep_outside(self, signal: int, log: float) -> None:
        settings = self._settings
        count = int(self._num_outside[signal])
        self._outside[signal, count] = log
        self._num_outside[signal] = count + 1
        if count + 1 < settings.persistence:
            return
        kept = self._outside[signal, -min(settings.size, settings.persistence) :]
        self._values[signal] = np.nan
        self._values[signal, : len(kept)] = kept
        self._num_values[signal] = len(kept)
        self._num_outside[signal] = 0
        self._known = None

    def _statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """The level of each signal, and its MAD; provisional ones where the window is short."""
        if self._known is None:
            settings = self._settings
            # NaN: nothing is known of a signal with fewer than FIRST values.
            usual = np.full(len(self._values), np.nan)
            spread = np.full(len(self._values), settings.provisional / settings.limit)
            counts = np.minimum(self._num_values, settings.size)
            for count in set(counts.tolist()):  # nearly always one
                rows = np.flatnonzero(counts == count)
                if count >= settings.least:
                    # Sorting float32 takes half as long, or less.
                    ordered = np.sort(self._values[rows, :count], axis=1).astype(np.float64)
                    usual[rows] = _middle(ordered)
                    spread[rows] = np.maximum(_mads(ordered), settings.floor)
                elif count >= FIRST:
                    # A short window holds its values in order.
                    values = self._values[rows, :count]
                    first, last = (
                        _middle(np.sort(part, axis=1))
                        for part in (values[:, :FIRST], values[:, -FIRST:])
                    )
                    usual[rows] = np.minimum(first, last)
            self._known = usual, spread
        return self._known

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {
            "values": _text(self._values),
            "num_values": self._num_values.tolist(),
            "outside": _text(self._outside),
            "num_outside": self._num_outside.tolist(),
        }

    def load(self, stored: dict[str, Any]) -> None:
        """Continue from what `state` returned.

        Raises:
            KeyError, TypeError, ValueError: it is of other signals or settings, or damaged.
        """
        values, outside = _array(stored["values"]), _array(stored["outside"])
        counts = np.array(stored["num_values"], np.int64)
        num_outside = np.array(stored["num_outside"], np.int64)
        self._values = values.reshape(self._values.shape)
        self._outside = outside.reshape(self._outside.shape)
        self._num_values = counts.reshape(self._num_values.shape)
        self._num_outside = num_outside.reshape(self._num_outside.shape)
        there = np.isfinite(self._values).sum(axis=1)
        if (there != np.minimum(counts, self._settings.size)).any() or not (
            (num_outside >= 0) & (num_outside < self._settings.persistence)
        ).all():
            raise ValueError("numbers of values out of range")
        self._known = None


def _middle(ordered: np.ndarray) -> np.ndarray:
    """Median of each row of sorted numbers, in float64."""
    count = ordered.shape[1]
    return (ordered[:, (count - 1) // 2].astype(np.float64) + ordered[:, count // 2]) / 2


def _mads(ordered: np.ndarray) -> np.ndarray:
    """MAD of each row of sorted numbers, without sorting the deviations.

    The n + 1 values that are nearest to the median are neighbours, so the n-th smallest deviation is the smallest reach of
    any n + 1 neighbours.
    """
    count, middle = ordered.shape[1], _middle(ordered)[:, None]
    below, above = middle - ordered, ordered - middle
    lower, upper = (
        np.maximum(below[:, : count - n], above[:, n:]).min(axis=1)
        for n in ((count - 1) // 2, count // 2)
    )
    return (lower + upper) / 2


def _text(values: np.ndarray) -> str:
    """Little-endian float32 in base64: a quarter of the size of decimal numbers, and exact."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _array(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
