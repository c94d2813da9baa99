"""How long each part of a step takes (train/parts.py), as one timeline: whatever is marked ends what was before.

A moment counts for the innermost part alone, so the parts add up to the whole. Moments are those of the host on a CPU. On
CUDA they are events on the stream of the computation, read when the step is over: nothing waits for the device meanwhile.
Between two steps, when the device has nothing to do, an event passes as soon as it is recorded, so it marks the host's time.
"""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch

from train.device import GpuEvents
from train.parts import BACKWARD, COMMUNICATION, FORWARD, belongs_to, listen
from train.waits import waits_noted


class Pass(NamedTuple):
    """A forward or backward pass of a step; in seconds."""

    kind: str
    """forward or backward."""
    start: float
    """From the moment that the caller has marked, with what it waits for within."""
    end: float


@dataclass(frozen=True)
class Timeline:
    """What is known of a stretch of time."""

    seconds: dict[str, float]
    """By part; "" is what belongs to none."""
    passes: list[Pass]
    """In order."""


class Moments(Protocol):
    """Marks moments, and says how far apart two of them are when both are over."""

    def mark(self) -> Any:
        """This moment."""
        ...

    def seconds(self, first: Any, last: Any) -> float:
        """Between two moments."""
        ...


class HostMoments:
    """Those of this thread's processor."""

    def mark(self) -> float:
        """See Moments."""
        return time.perf_counter()

    def seconds(self, first: float, last: float) -> float:
        """See Moments."""
        return last - first


Entry = tuple[str | None, Any]
"""A part that begins, or None for the end of the one that began last; and when."""


class StepClock:
    """Listens to the parts of a step, and to this rank's waits for others, from `start` to `stop`.

    Args:
        device: of this rank.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._moments: Moments = GpuEvents() if device.type == "cuda" else HostMoments()
        self._entries: list[Entry] = []
        self._within: list[str] = []
        self._first: Any = None
        self._origin: Any = None
        self._listening = contextlib.ExitStack()
        self.is_running = False

    def start(self) -> None:
        """Begin a stretch of time."""
        self._listening.callback(listen(self))
        self._listening.enter_context(waits_noted(self._device, self._wait, self._end_wait))
        self._within = []
        self._begin(self._moments.mark())
        self.is_running = True

    def mark_origin(self) -> None:
        """Count the seconds of passes from this moment."""
        self._origin = self._moments.mark()

    def enter(self, name: str) -> None:
        """See train/parts.py."""
        self._entries.append((name, self._moments.mark()))

    def leave(self) -> None:
        """See train/parts.py."""
        self._entries.append((None, self._moments.mark()))

    def lap(self) -> Timeline:
        """End a stretch, and begin the next one at the same moment."""
        last = self._moments.mark()
        timeline, self._within = timeline_of(
            self._entries, self._first, last, self._origin, self._within, self._moments
        )
        self._begin(last)
        return timeline

    def stop(self) -> None:
        """Listen no more; does nothing if it does not."""
        self.is_running = False
        self._listening.close()
        self._entries = []

    def _begin(self, first: Any) -> None:
        self._entries = []
        self._first = self._origin = first

    def _wait(self) -> None:
        self.enter(COMMUNICATION)

    def _end_wait(self, _: None) -> None:
        self.leave()


def timeline_of(
    entries: Sequence[Entry],
    first: Any,
    last: Any,
    origin: Any,
    within: Sequence[str],
    moments: Moments,
) -> tuple[Timeline, list[str]]:
    """What a stretch of time went into.

    Args:
        entries: in order.
        first: its first moment.
        last: its last one.
        origin: the moment from which passes are counted.
        within: the parts that had begun before it, the outermost first.
        moments: those of the entries.

    Returns:
        The timeline, and the parts that go on after it.
    """
    seconds: dict[str, float] = {}
    passes: list[Pass] = []
    stack, begun = list(within), [None] * len(within)
    before = first
    for name, moment in (*entries, ("", last)):
        current = stack[-1] if stack else ""
        seconds[current] = seconds.get(current, 0.0) + moments.seconds(before, moment)
        before = moment
        if name:
            counts = current if belongs_to(current, name) else name
            stack.append(counts)
            begun.append(moment if counts in (FORWARD, BACKWARD) else None)
        elif name is None and stack:
            kind, start = stack.pop(), begun.pop()
            if start is not None:
                passes.append(
                    Pass(kind, moments.seconds(origin, start), moments.seconds(origin, moment))
                )
    return Timeline(seconds, passes), stack
