"""How long a rank itself works on a step: its time without what it waits for others.

The ranks of a step wait for each other in every collective, so the step takes all of them as long as the slowest. What
tells them apart is the time between these waits (train/waits.py).

On CPU (gloo) a wait stops the thread, and its clocks measure it: the wall's, the thread's own, and the kernel's count of
how long a thread that could run was kept from it by others (/proc/thread-self/schedstat), which is left out.

On CUDA (NCCL) a wait stops the stream, not the thread: events on the stream are recorded before and after, and read once
the step is over.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch

from train.device import GpuEvents
from train.waits import waits_noted

_SCHEDSTAT = "/proc/thread-self/schedstat"
_LONGEST = 128
"""Bytes of its three counts, at most."""
_NANOSECONDS = 1e-9


class OwnSeconds(NamedTuple):
    """What a rank did in a step beside waiting for others, in seconds."""

    work: float
    """All of it: computing, sleeping, waiting for a disk."""
    idle: float
    """The part of `work` in which nothing was computed. CUDA does not tell it: 0."""
    kept: float
    """Beside `work`: kept from running by other threads of the machine. 0 on CUDA."""


class _Clock(Protocol):
    """Marks moments of a step, and says how far apart they are when it is over."""

    def mark(self) -> Any:
        """This moment."""
        ...

    def between(self, first: Any, last: Any) -> OwnSeconds:
        """From one moment to another, of a step that is over."""
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...


def can_measure(device: torch.device) -> bool:
    """False on CPU if the kernel does not count how long threads are kept from running."""
    return device.type == "cuda" or os.access(_SCHEDSTAT, os.R_OK)


class OwnTime:
    """Measures the steps of this rank.

    Args:
        device: of this rank; `can_measure` it.
    """

    def __init__(self, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        self._clock: _Clock = _StreamClock() if on_gpu else _ThreadClock()
        self._device = device
        self._waits: list[tuple[Any, Any]] = []
        self.last = OwnSeconds(0.0, 0.0, 0.0)
        """Of the last step that was measured."""

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Measure a step, which ends with the device's work done."""
        self._waits.clear()
        with waits_noted(self._device, self._clock.mark, self._note):
            first = self._clock.mark()
            yield
            last = self._clock.mark()
        spans = [self._clock.between(*wait) for wait in self._waits]
        whole = self._clock.between(first, last)
        waited = (sum(part) for part in zip(*spans, strict=True)) if spans else (0.0, 0.0, 0.0)
        self.last = OwnSeconds(*(a - b for a, b in zip(whole, waited, strict=True)))

    def close(self) -> None:
        """Release the clock."""
        self._clock.close()

    def _note(self, first: Any) -> None:
        self._waits.append((first, self._clock.mark()))


class _Moment(NamedTuple):
    wall: float
    computing: float
    kept: float


class _ThreadClock:
    """The clocks of the thread that makes it."""

    def __init__(self) -> None:
        self._file = open(_SCHEDSTAT, "rb", buffering=0)  # noqa: SIM115

    def mark(self) -> _Moment:
        """See `_Clock`."""
        self._file.seek(0)
        kept = int(self._file.read(_LONGEST).split()[1])
        return _Moment(time.perf_counter(), time.thread_time(), kept * _NANOSECONDS)

    def between(self, first: _Moment, last: _Moment) -> OwnSeconds:
        """See `_Clock`."""
        kept = last.kept - first.kept
        work = last.wall - first.wall - kept
        return OwnSeconds(work, work - (last.computing - first.computing), kept)

    def close(self) -> None:
        """See `_Clock`."""
        self._file.close()


class _StreamClock:
    """The clock of the device, on the stream of the computation."""

    def __init__(self) -> None:
        self._events = GpuEvents()

    def mark(self) -> Any:
        """See `_Clock`."""
        return self._events.mark()

    def between(self, first: Any, last: Any) -> OwnSeconds:
        """See `_Clock`."""
        seconds = self._events.seconds(first, last)
        return OwnSeconds(seconds, 0.0, 0.0)

    def close(self) -> None:
        """See `_Clock`."""
