"""What the live display shows, gathered from what a run reports."""

import math
from dataclasses import dataclass

from train.metrics import Metrics
from train.terminal.sparkline import Series

# Share of the newest step in what is averaged: an average over about ten steps.
_NEWEST = 0.1
# Share that the past keeps in the rate of samples with each step: an average over about fifty steps.
_KEPT = 0.98
# Steps before anything is said of the time left; the first ones are slower than the rest.
_STEPS_BEFORE_RATE = 5
_LOSS = "train/loss"
_SMOOTHED = ("speed/tokens_per_second", "speed/seconds_per_step", "speed/mfu", "speed/hfu")


@dataclass(frozen=True)
class Event:
    """Something that people were told."""

    text: str
    """One line."""
    is_warning: bool
    at: float
    """When, in seconds of the display's clock."""


class Readings:
    """The newest figures of a run.

    Args:
        name: of the run.
        total_samples: its length.
        every_steps: steps of a column of a sparkline, in the long run.
        started: when this attempt began, in seconds of the display's clock.
    """

    def __init__(self, name: str, total_samples: int, every_steps: int, started: float) -> None:
        self.name = name
        self.total_samples = total_samples
        self.started = started
        self.line: Metrics = {}
        """Metrics of the newest step."""
        self.losses: dict[str, Series] = {}
        """Mean loss ("train/loss") and the loss of each objective that there was, in the order of the metrics."""
        self.gradient_norm = Series(every_steps, keeps_peaks=True)
        self.held_out: tuple[float, int] | None = None
        """The newest held-out loss, and the samples after which it was measured."""
        self.checkpoint: tuple[str, float] | None = None
        """Name of the newest checkpoint, and when it was written."""
        self.event: Event | None = None
        self._every_steps = every_steps
        self._smoothed: dict[str, float] = {}
        self._rate = _Rate()

    def take(self, line: Metrics, now: float) -> None:
        """Take the metrics of a step."""
        self.line = line
        self._rate.observe(line["samples_seen"], now)
        for key, value in line.items():
            if value is None:
                continue
            if key == _LOSS or key.startswith(f"{_LOSS}_"):
                if key not in self.losses:
                    series = {**self.losses, key: Series(self._every_steps)}
                    self.losses = {key: series[key] for key in line if key in series}
                self.losses[key].add(value)
                self._smooth(key, value)
            elif key in _SMOOTHED:
                self._smooth(key, value)
        if line["optim/grad_norm"] is not None:
            self.gradient_norm.add(line["optim/grad_norm"])
        if line["valid/loss"] is not None:
            self.held_out = (line["valid/loss"], line["samples_seen"])

    def smoothed(self, key: str) -> float | None:
        """A metric's average over about ten steps; the newest value if that is not finite; None if there was none."""
        newest = self.line.get(key)
        if newest is not None and not math.isfinite(newest):
            return newest
        return self._smoothed.get(key)

    def seconds_left(self, now: float) -> float | None:
        """How long the rest will take; None until that can be told."""
        missing = self.total_samples - self.line["samples_seen"]
        return self._rate.seconds_for(missing, now)

    def _smooth(self, key: str, value: float) -> None:
        """Average exponentially; a value that is not finite is left out."""
        if math.isfinite(value):
            previous = self._smoothed.get(key, value)
            self._smoothed[key] = previous + _NEWEST * (value - previous)


class _Rate:
    """Samples per second of all that a run does, evaluations and saves included."""

    def __init__(self) -> None:
        self._newest: tuple[int, float] | None = None
        self._samples = 0.0
        self._seconds = 0.0
        self._steps = 0

    def observe(self, samples_seen: int, now: float) -> None:
        """Take the position after a step; the first step is not measured."""
        before, self._newest = self._newest, (samples_seen, now)
        if before is None or samples_seen <= before[0]:  # it begins, or was set back
            self._samples, self._seconds, self._steps = 0.0, 0.0, 0
            return
        self._samples = self._samples * _KEPT + samples_seen - before[0]
        self._seconds = self._seconds * _KEPT + now - before[1]
        self._steps += 1

    def seconds_for(self, samples: int, now: float) -> float | None:
        """How long so many samples take from the newest position on, less what has passed since."""
        if self._newest is None or self._steps < _STEPS_BEFORE_RATE:
            return None
        needed = samples * self._seconds / self._samples
        return max(needed - (now - self._newest[1]), 0.0)
