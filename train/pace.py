"""A message when training becomes much slower than before, usually because machine, network or disk are shared.

It changes nothing else. The watchdog (train/watchdog.py) ends a process that hangs; this file is about slow steps.
"""

import os
import statistics
from collections import deque

from train.world import threads_are_chosen

# Steps before this many are not judged, and the first ones, which compile and allocate, not counted.
_STEPS_TO_LEARN, _FIRST_STEPS = 8, 2
_STEPS_REMEMBERED = 100
_STEPS_IN_A_ROW = 3
_MUCH_SLOWER = 10.0
# It is said again only after steps were fast once more: at most twice their usual time.
_FAST_AGAIN = 2.0
# Processes that want to run, by core, from which a machine counts as busy.
_BUSY = 1.5
_ELSEWHERE = "The load of this machine is not why: look at the disk of the data, the network and the other nodes."


class Pace:
    """Knows what a step usually takes; rank 0 asks after each."""

    def __init__(self) -> None:
        self._usual: deque[float] = deque(maxlen=_STEPS_REMEMBERED)
        self._num_seen = 0
        self._num_slow = 0
        self._has_said = False

    def observe(self, seconds: float, num_samples: int) -> str | None:
        """Take a step's time.

        Args:
            seconds: of the slowest rank.
            num_samples: of the step, for the batch may grow.

        Returns:
            What to say; None: nothing.
        """
        self._num_seen += 1
        if self._num_seen <= _FIRST_STEPS:
            return None
        per_sample = seconds / num_samples
        usual = statistics.median(self._usual) if self._usual else per_sample
        if len(self._usual) < _STEPS_TO_LEARN or per_sample < _MUCH_SLOWER * usual:
            self._num_slow = 0
            self._has_said = self._has_said and per_sample > _FAST_AGAIN * usual
            self._usual.append(per_sample)
            return None
        self._num_slow += 1  # not learnt from: slow steps must not become the usual ones
        if self._num_slow < _STEPS_IN_A_ROW or self._has_said:
            return None
        self._has_said = True
        return (
            f"Steps take {seconds:.2f} s now, {per_sample / usual:.0f} times as long as before "
            f"({usual * num_samples:.2f} s). {busy_hint() or _ELSEWHERE}"
        )


def busy_hint() -> str | None:
    """What to type if other programs want this machine's processors too; None if they do not."""
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load <= _BUSY * cores:
        return None
    busy = f"This machine is busy: load {load:.1f} on {cores} cores. Steps take longer while other programs need it"
    return (
        f"{busy}."
        if threads_are_chosen()
        else f"{busy}; OMP_NUM_THREADS=1 before the command may help."
    )
