"""Slow drift of the loss: its median over a while lies above the best that it has been, and stays there.

Spikes are found by their distance from a window that moves along; a loss that rises slowly takes that window with it. So
drift compares with the lowest level so far, by more than the medians themselves vary.
"""

import statistics
from collections import deque
from dataclasses import dataclass
from typing import Any

MEDIAN_OF = 64
"""Steps of one median."""
EVERY = 16
"""Steps between two medians."""
_LEVEL_OF = 16
"""Medians whose median is a level."""
_KEPT = 64
"""Medians from which their own variation is known."""
_HELD = 2
"""Medians in a row that must lie above the limit."""
_CALM = 2.0
"""Standard errors above the best level up to which a median shows no rise."""
_SIGMAS_PER_MAD = 1.4826


@dataclass(frozen=True)
class DriftSettings:
    """When a rise counts."""

    limit: float
    """Standard errors of a median."""
    least: float
    """Smallest rise, in log units."""


class Drift:
    """Follows one signal, the logarithm of the loss.

    Args:
        settings: when a rise counts.
    """

    def __init__(self, settings: DriftSettings) -> None:
        self._settings = settings
        self.reset(0)

    def reset(self, step: int) -> None:
        """Forget everything: the loss is about to change on purpose at this step, or its new level was reported."""
        self._recent = deque[float](maxlen=MEDIAN_OF)
        self._medians = deque[float](maxlen=_KEPT)
        self._num_values = 0
        self._best: float | None = None
        self._num_above = 0
        self._is_up = False
        self._calm_step = step

    def observe(self, step: int, log: float) -> int | None:
        """Take in a step; returns the step at which a drift began, once one is found.

        Args:
            step: number of the step.
            log: logarithm of its loss.
        """
        self._recent.append(log)
        self._num_values += 1
        if self._num_values < MEDIAN_OF or self._num_values % EVERY:
            return None
        median = statistics.median(self._recent)
        self._medians.append(median)
        if len(self._medians) < _LEVEL_OF:
            return None
        level = statistics.median(list(self._medians)[-_LEVEL_OF:])
        if self._best is None or level < self._best:
            self._best = level
        error = self._error()
        limit = max(self._settings.limit * error, self._settings.least)
        self._is_up = median > self._best + limit / 2
        if median <= self._best + _CALM * error:
            # A rise that began within these values may not show in their median yet.
            self._calm_step = step - MEDIAN_OF
        self._num_above = self._num_above + 1 if median > self._best + limit else 0
        if self._num_above < _HELD:
            return None
        began = self._calm_step + 1
        self.reset(step)
        return began

    @property
    def best(self) -> float | None:
        """The lowest level so far; None: too few steps are known."""
        return self._best

    @property
    def rises_from(self) -> int | None:
        """First step that may be part of a rise; None: the last median lies within half the limit."""
        return self._calm_step + 1 if self._is_up else None

    @property
    def is_suspected(self) -> bool:
        """True if the last median was above the limit, and the next one decides."""
        return self._num_above > 0

    def _error(self) -> float:
        """Standard error of a median, from how medians without a common step differ."""
        apart = MEDIAN_OF // EVERY
        kept = list(self._medians)
        differences = [later - earlier for earlier, later in zip(kept, kept[apart:], strict=False)]
        middle = statistics.median(differences)
        mad = statistics.median(abs(each - middle) for each in differences)
        return _SIGMAS_PER_MAD * mad / 2**0.5

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {
            "recent": list(self._recent),
            "medians": list(self._medians),
            "num_values": self._num_values,
            "best": self._best,
            "num_above": self._num_above,
            "is_up": self._is_up,
            "calm_step": self._calm_step,
        }

    def load(self, stored: dict[str, Any]) -> None:
        """Continue from what `state` returned.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        self.reset(0)
        self._recent.extend(float(each) for each in stored["recent"])
        self._medians.extend(float(each) for each in stored["medians"])
        self._num_values = int(stored["num_values"])
        self._best = None if stored["best"] is None else float(stored["best"])
        self._num_above = int(stored["num_above"])
        self._is_up = bool(stored["is_up"])
        self._calm_step = int(stored["calm_step"])
