"""Rules by which other programs find bad steps, written anew from how they work, for benchmarks/detection.py.

Each follows one figure, the loss or the global gradient norm, and says of every step whether it is an alarm. What
follows an alarm is not modelled, but for ZClip's clipping, which changes what its averages take in.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Rule(Protocol):
    """Follows one figure."""

    def observe(self, value: float) -> bool:
        """Take in a step's figure; True: an alarm."""
        ...


class SigmaRule:
    """Mean and standard deviation of the previous steps; outliers are taken in like all others, and so is NaN.

    Args:
        window: steps that a value is compared with.
        active: steps from which on it is judged.
        sigmas: from the mean from which on a value is an alarm.
        is_skipped: the step of an alarm is left out; far below is an alarm, too.
    """

    def __init__(self, window: int, active: int, sigmas: float, *, is_skipped: bool) -> None:
        self._values = np.zeros(window)
        self._count = 0
        self._active, self._sigmas, self._is_skipped = active, sigmas, is_skipped

    def observe(self, value: float) -> bool:
        """Compare with the steps before, then take in."""
        is_alarm = False
        if self._count >= self._active:
            known = self._values[: self._count]
            deviation, limit = value - known.mean(), self._sigmas * known.std(ddof=1)
            # A step is applied if its score is at most the limit, so whatever is compared with NaN is an alarm.
            is_alarm = not abs(deviation) <= limit if self._is_skipped else bool(deviation >= limit)
        self._values[self._count % len(self._values)] = value
        self._count += 1
        return is_alarm


class ZClip:
    """Exponential averages of mean and variance; a norm far above is an alarm, and is clipped before it is taken in.

    Args:
        alpha: share of the average that stays at a step.
        warm_up: steps that only set the first mean and variance.
        limit: z score from which on a value is an alarm.
    """

    def __init__(self, alpha: float = 0.97, warm_up: int = 25, limit: float = 2.5) -> None:
        self._alpha, self._warm_up, self._limit = alpha, warm_up, limit
        self._first: list[float] = []
        self._mean = self._variance = 0.0

    def observe(self, value: float) -> bool:
        """Compare with the averages, then take in what is left after clipping."""
        if len(self._first) < self._warm_up:
            self._first.append(value)
            self._mean = math.fsum(self._first) / len(self._first)
            squares = math.fsum((each - self._mean) ** 2 for each in self._first)
            self._variance = squares / len(self._first)
            return False
        deviation = math.sqrt(self._variance)
        score = (value - self._mean) / (deviation + 1e-6)
        is_alarm = score > self._limit
        if is_alarm:
            value = self._mean + self._limit * deviation / (score / self._limit)
        self._mean = self._alpha * self._mean + (1 - self._alpha) * value
        squared = (value - self._mean) ** 2
        self._variance = self._alpha * self._variance + (1 - self._alpha) * squared
        return is_alarm


class FirstMaximum:
    """A multiple of the largest of the first values, which is never renewed.

    Args:
        first: values that set it.
        factor: from which on a value is an alarm.
    """

    def __init__(self, first: int = 100, factor: float = 10.0) -> None:
        self._first, self._factor = first, factor
        self._count, self._largest = 0, 0.0

    def observe(self, value: float) -> bool:
        """Compare with the largest of the first values; NaN and infinity are left to another check."""
        if not math.isfinite(value):
            return False
        if self._count < self._first:
            self._count += 1
            self._largest = max(self._largest, abs(value))
            return False
        return abs(value) >= self._factor * self._largest


@dataclass(frozen=True)
class Peer:
    """A rule, and the figures that it follows."""

    source: str
    new: Callable[[], Rule]
    figures: tuple[str, ...] = ("loss", "norm")


PEERS = {
    "6 sigma of 128": Peer(
        "OLMo-core 067267c optim/skip_step_optimizer.py: the step is left out. levanter's optim/skipstep.py is alike",
        lambda: SigmaRule(128, 63, 6.0, is_skipped=True),
    ),
    "7 sigma of 1000": Peer(
        "OLMo 2 (arXiv 2501.00656), its spike score: a figure to look at, which nothing follows",
        lambda: SigmaRule(1000, 1000, 7.0, is_skipped=False),
    ),
    "ZClip 2.5": Peer(
        "ZClip 134344f zclip.py (arXiv 2504.02507): the gradient is clipped", ZClip, ("norm",)
    ),
    "10 x the first 100": Peer(
        "Megatron-LM 00caa53 core/rerun_state_machine.py, is_unexpectedly_large: the step is run again; off by default",
        FirstMaximum,
    ),
}
"""By name."""
