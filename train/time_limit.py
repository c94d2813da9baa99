"""The end of the time that a run was given, and the moment to stop before it.

The scheduler's limit is known from the start, so nobody has to be warned: the run stops by itself as if asked to,
while there is still time for the slowest step and the slowest save that it has seen.
"""

import time
from collections.abc import Callable

from configs import derive
from configs.schema import Config

REASON = "the time limit"
# The end of a save is known at the latest when the next one begins.
_SAVES_REMEMBERED = 2


class TimeLimit:
    """What rank 0 knows about the time that is left.

    Args:
        deadline: in seconds of `clock`; None: there is none.
        margin_seconds: left over, for what cannot be foreseen; also what a save takes as long as none was seen.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        deadline: float | None,
        margin_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._deadline = deadline
        self._margin = margin_seconds
        self._clock = clock
        self._pass_began: float | None = None
        self._save_began: dict[int, float] = {}
        self._slowest_pass = 0.0
        self._slowest_save: float | None = None

    def begin_pass(self) -> None:
        """A step begins, with the evaluation that may follow it; the one before has ended."""
        now = self._clock()
        if self._pass_began is not None:
            self._slowest_pass = max(self._slowest_pass, now - self._pass_began)
        self._pass_began = now

    def begin_save(self, step: int) -> None:
        """The save after `step` begins; it runs beside the next steps."""
        self._save_began = {step: self._clock()} | self._save_began
        while len(self._save_began) > _SAVES_REMEMBERED:
            self._save_began.popitem()

    def end_save(self, step: int) -> None:
        """The save after `step` has ended in one of its stores; with a second copy, the later end counts."""
        if step in self._save_began:
            seconds = self._clock() - self._save_began[step]
            self._slowest_save = max(self._slowest_save or 0.0, seconds)

    @property
    def is_near(self) -> bool:
        """Asked after a step: True if another one, and a save after it, might not end in time."""
        if self._deadline is None:
            return False
        now = self._clock()
        this_pass = 0.0 if self._pass_began is None else now - self._pass_began
        save = self._margin if self._slowest_save is None else self._slowest_save
        return now + max(self._slowest_pass, this_pass) + save + self._margin > self._deadline


def deadline_of(config: Config, started: float, job_end: float | None) -> float | None:
    """The earlier of the run's own limit and the scheduler's.

    Args:
        config: with `run.time_limit`.
        started: when this process started, in seconds since the epoch.
        job_end: when the scheduler ends it; None: unknown.
    """
    limit = config.run.time_limit
    own = None if limit is None else started + derive.time_limit_seconds(limit)
    return min((end for end in (own, job_end) if end is not None), default=None)
