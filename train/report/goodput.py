"""Goodput: the share of a run's wall time in which it trained what it has become.

The whole is the time from the beginning of the first process to the last thing that the last one recorded. It is divided into:

- productive: the steps of the run's history as it stands now, except those whose update was left out. A step's time is
  `speed/seconds_per_step`, its wait for data included;
- start-up: from the beginning of a process to its first step: imports, process groups, the checkpoint;
- evaluation (`speed/evaluation_seconds`), and checkpoints (`speed/checkpoint_blocked_seconds`: only what kept training
  waiting);
- left out: steps of the history whose update was left out, for an overflow or by a rule;
- rolled back: steps that a rollback took out of the history, and the time it took to go back;
- repeated: steps that were trained again after a start from an older checkpoint. Their first training is what counts here:
  the second one is productive;
- other: the rest of an attempt: logging, checks, the last save, waiting for a rank that hangs;
- idle: between the end of one attempt and the beginning of the next.

Productive time divided by the whole is the goodput; everything else is lost. The parts add up to the whole. The end of a
process that was killed is not recorded: it is taken to be its last event, or the time that its known steps took, if that
is later. So time after the last event of a killed process may count as idle instead of other; goodput is the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from configs.run_files import Event
from train.report.attempts import (
    Attempt,
    Stretch,
    attempts_of,
    cut_shares,
    owners,
    stretches_of,
)
from train.report.columns import Columns, Numbers

PARTS = {
    "productive": "productive steps",
    "evaluation": "evaluation",
    "checkpoint": "waiting for checkpoints",
    "left_out": "steps left out",
    "rollback": "rolled back",
    "repeated": "repeated after a restart",
    "start_up": "start-up",
    "other": "other",
}
"""The parts of an attempt, in the order in which they are drawn, and what they are called."""
IDLE = "idle"
"""What is between attempts."""


@dataclass(frozen=True)
class AttemptTime:
    """An attempt and what its time was spent on."""

    attempt: Attempt
    parts: Mapping[str, float]
    """Seconds by the names of PARTS; together they are its duration."""
    idle_before: float
    """Seconds since the end of the attempt before it."""

    @property
    def seconds(self) -> float:
        """Its duration."""
        return self.attempt.end - self.attempt.begin


@dataclass(frozen=True)
class Goodput:
    """What the wall time of a run was spent on."""

    attempts: Sequence[AttemptTime]
    """At least one."""

    @property
    def seconds(self) -> float:
        """The whole: from the first start to the last record."""
        return self.attempts[-1].attempt.end - self.attempts[0].attempt.begin

    @property
    def parts(self) -> dict[str, float]:
        """Seconds by the names of PARTS, and IDLE; together they are the whole."""
        sums = {name: sum(each.parts[name] for each in self.attempts) for name in PARTS}
        return {**sums, IDLE: sum(each.idle_before for each in self.attempts)}

    @property
    def share(self) -> float | None:
        """Goodput, from 0 to 1; None for a run that has taken no time yet."""
        return self.parts["productive"] / self.seconds if self.seconds > 0 else None


def goodput(
    events: Sequence[tuple[Event, Mapping[str, Any]]],
    metrics: Columns,
    process_times: Sequence[float] = (),
) -> Goodput | None:
    """Calculate the goodput of a run; None if it has no event of a start.

    Args:
        events: of events.jsonl, in the order of the file.
        metrics: metrics.jsonl.
        process_times: when processes took hold of the run, from its generations: what a start wrote that failed before it
            trained is then not taken for a record of the attempt before it.
    """
    stretches = stretches_of(events, process_times)
    if not stretches:
        return None
    parts = [dict.fromkeys(PARTS, 0.0) for _ in stretches]
    _add_history(stretches, metrics, parts)
    _add_cut(stretches, parts)
    attempts = attempts_of(stretches, [sum(each.values()) for each in parts])
    found = list[AttemptTime]()
    first = 0
    for attempt in attempts:
        own = parts[first : first + len(attempt.stretches)]
        first += len(attempt.stretches)
        idle = max(attempt.begin - found[-1].attempt.end, 0.0) if found else 0.0
        found.append(AttemptTime(attempt, _settled(attempt, own), idle))
    return Goodput(found)


def _add_history(
    stretches: Sequence[Stretch], metrics: Columns, parts: list[dict[str, float]]
) -> None:
    """Add the steps of the history to the stretches that trained them."""
    owner = owners(stretches, np.nan_to_num(metrics.column("samples_seen")))
    so_far = np.nan_to_num(metrics.column("optim/skipped_steps"))
    is_left_out = np.diff(so_far, prepend=0.0) > 0
    seconds = _seconds(metrics, "speed/seconds_per_step")
    of_parts = {
        "productive": np.where(is_left_out, 0.0, seconds),
        "left_out": np.where(is_left_out, seconds, 0.0),
        "checkpoint": _seconds(metrics, "speed/checkpoint_blocked_seconds"),
        "evaluation": _seconds(metrics, "speed/evaluation_seconds"),
    }
    for name, values in of_parts.items():
        sums = np.bincount(owner, weights=values, minlength=len(stretches))
        for own, total in zip(parts, sums.tolist(), strict=True):
            own[name] += total


def _add_cut(stretches: Sequence[Stretch], parts: list[dict[str, float]]) -> None:
    """Add steps that are no longer part of the history to the stretches that trained them."""
    for number, stretch in enumerate(stretches):
        kind = "repeated" if stretch.rolled_back_at is None else "rollback"
        for earlier, share in cut_shares(stretches, number).items():
            parts[earlier][kind] += share * stretch.repeated_seconds


def _settled(attempt: Attempt, parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The parts of an attempt, which are made to fill its duration."""
    sums = {name: sum(each[name] for each in parts) for name in PARTS}
    for stretch in attempt.stretches[1:]:
        if stretch.rolled_back_at is not None:
            sums["rollback"] += max(stretch.time - stretch.rolled_back_at, 0.0)
    trained = max(attempt.end - attempt.trains, 0.0)
    known = sum(sums.values())
    if known > trained:  # a clock was set, or the process had been cut off from its run
        sums = {name: seconds * (trained / known) for name, seconds in sums.items()}
        known = trained
    start_up = max(min(attempt.trains, attempt.end) - attempt.begin, 0.0)
    return {**sums, "start_up": start_up, "other": trained - known}


def _seconds(metrics: Columns, key: str) -> Numbers:
    found = metrics.column(key)
    return np.where((found > 0) & (found < 2**40), found, 0.0)
