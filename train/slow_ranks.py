"""Which ranks are slow for long: a rule over what each rank itself works on a step (train/own_time.py).

Every few steps the ranks exchange what is typical of their last steps, a *window*. A rank is compared with the median of the
others of its pipeline stage, which have equal work. A rank that is alone on its stage is compared with its own past, as
far as the other ranks have not become slower by as much: the batch may grow, the machine may be busy. It is named when it
exceeds that in three windows in a row, and is over it after as many windows near the others.

Idling - sleeping, waiting for a disk - is compared by itself, by the step of a window that idles least: a rank that is slow
for it idles in every step. Where processes share cores, both work and idling are noise in single steps: two ranks side by
side take up to one and a half times as long as one alone, and the thread that trains idles while another thread of its
process has Python's lock and is kept from running. So where a rank of the comparison was kept from running, nothing but
the least idling is compared.
"""

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from train.own_time import OwnSeconds

WINDOW_STEPS = 5
"""Steps between two exchanges."""
_WINDOWS_IN_A_ROW = 3
# More work, or more idling, from which a window speaks against a rank: shares of the work that it is compared with.
_SLOW, _SLOW_IDLE = 0.15, 0.08
# Share of these up to which a window speaks for it.
_NEAR = 0.5
# Of a rank's work, from which time kept from running shows that cores are shared.
_SHARED = 0.05
# Windows that make a past: the first one compiles and allocates.
_FIRST_WINDOWS, _WINDOWS_TO_LEARN, _WINDOWS_REMEMBERED = 1, 3, 20


@dataclass(frozen=True)
class Verdict:
    """A rank that is slow from now on, or no longer."""

    rank: int
    is_slow: bool
    excess: float
    """Share by which it exceeded what it was compared with, in the last window."""
    is_alone: bool
    """True if it was compared with its own past."""


@dataclass
class _Seen:
    """What is known of a rank."""

    past: deque[OwnSeconds] = field(
        default_factory=lambda: deque[OwnSeconds](maxlen=_WINDOWS_REMEMBERED)
    )
    is_slow: bool = False
    in_a_row: int = 0
    """Windows in a row that speak for the other verdict."""


class _Excess(NamedTuple):
    share: float
    """Of what the rank is compared with."""
    limits: float
    """In multiples of what speaks against a rank."""


class SlowRanks:
    """Judges windows.

    Args:
        stages: the ranks of each pipeline stage.
    """

    def __init__(self, stages: Sequence[Sequence[int]]) -> None:
        self._peers = {
            rank: [other for other in stage if other != rank] for stage in stages for rank in stage
        }
        self._seen = {rank: _Seen() for rank in self._peers}
        self._num_windows = 0

    def observe(self, window: Sequence[OwnSeconds]) -> list[Verdict]:
        """Take a window.

        Args:
            window: of each rank, by `window_of`.

        Returns:
            The ranks whose verdict changes.
        """
        self._num_windows += 1
        excesses = {rank: self._excess(rank, window) for rank in self._peers}
        verdicts = [
            verdict
            for rank, excess in excesses.items()
            if excess is not None and (verdict := self._judge(rank, excess)) is not None
        ]
        for rank, excess in excesses.items():
            # What may be slow is not learnt from: it must not become the usual.
            if self._num_windows > _FIRST_WINDOWS and (excess is None or excess.limits <= _NEAR):
                self._seen[rank].past.append(window[rank])
        return verdicts

    def _judge(self, rank: int, excess: _Excess) -> Verdict | None:
        seen = self._seen[rank]
        speaks = excess.limits <= _NEAR if seen.is_slow else excess.limits > 1
        seen.in_a_row = seen.in_a_row + 1 if speaks else 0
        if seen.in_a_row < _WINDOWS_IN_A_ROW:
            return None
        seen.in_a_row = 0
        seen.is_slow = not seen.is_slow
        return Verdict(rank, seen.is_slow, excess.share, not self._peers[rank])

    def _excess(self, rank: int, window: Sequence[OwnSeconds]) -> _Excess | None:
        """By how much a rank's window exceeds what it is compared with; None: nothing is known to compare with."""
        own, peers = window[rank], [window[other] for other in self._peers[rank]]
        usual = _medians(peers) if peers else self._usual_alone(rank, window)
        if usual is None or usual.work <= 0:
            return None
        of_idle = (own.idle - usual.idle) / usual.work
        if any(each.kept > _SHARED * each.work for each in (own, *(peers or [usual]))):
            return _Excess(of_idle, of_idle / _SLOW_IDLE)
        of_work = (own.work - usual.work) / usual.work
        return _Excess(of_work, max(of_work / _SLOW, of_idle / _SLOW_IDLE))

    def _usual_alone(self, rank: int, window: Sequence[OwnSeconds]) -> OwnSeconds | None:
        """What a rank's past lets expect, if it has become slower by as much as the median of the others."""
        past = {each: seen.past for each, seen in self._seen.items()}
        known = [each for each in past if len(past[each]) >= _WINDOWS_TO_LEARN]
        changes = [window[each].work / _medians(past[each]).work for each in known if each != rank]
        if rank not in known or not changes:
            return None
        change = statistics.median(changes)
        return OwnSeconds(*(change * part for part in _medians(past[rank])))


def _medians(of: Sequence[OwnSeconds]) -> OwnSeconds:
    return OwnSeconds(*(statistics.median(parts) for parts in zip(*of, strict=True)))


def window_of(steps: Sequence[OwnSeconds]) -> OwnSeconds:
    """A rank's part of a window: the medians of its steps, and the least that one of them idles."""
    return _medians(steps)._replace(idle=min(step.idle for step in steps))
