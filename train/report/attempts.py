"""The attempts at a run and how long each took, from its events: the ground that goodput is calculated on.

A process writes `start` or `resume` when it begins to train, and `resume` again when it sets itself back to a checkpoint.
What lies between two of these is a *stretch*. Stretches of one process are one attempt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.run_files import Event
from train.report.columns import Numbers
from train.report.event_fields import BEGINNINGS, amount, count

_ENDINGS = ("done", "stop", "hang")
_SAVE_FAILED = ("checkpoint ", "second copy of the checkpoint ")
"""How the message of an error begins that does not end an attempt (train/loop.py)."""


@dataclass
class Stretch:
    """Steps that a process trains one after the other."""

    time: float
    """When it begins, in seconds since the epoch."""
    position: int
    """Samples seen before its first step."""
    attempt_start: float | None
    """When its process began; None: an older program did not say."""
    details: Mapping[str, Any]
    """Fields of its first event."""
    repeated: tuple[int, int] | None = None
    """Range of samples whose steps it takes out of the history; None: there are none."""
    repeated_seconds: float = 0.0
    """What those steps took."""
    rolled_back_at: float | None = None
    """When the rollback was decided that it carries out; None: it carries out none."""
    last_record: float = 0.0
    """Time of its last event."""
    ending: str = ""
    """What its last event says of its end; "": nothing."""


@dataclass
class Attempt:
    """A process that trained."""

    begin: float
    """Start of the process, in seconds since the epoch."""
    stretches: list[Stretch]
    end: float
    """Its last record: the time of its last event, or the end of its known steps if that is later."""

    @property
    def trains(self) -> float:
        """When it began to train."""
        return max(self.stretches[0].time, self.begin)

    @property
    def ending(self) -> str:
        """How it ended, in the words of its events; "": not recorded."""
        return self.stretches[-1].ending


def stretches_of(
    events: Sequence[tuple[Event, Mapping[str, Any]]], process_times: Sequence[float] = ()
) -> list[Stretch]:
    """The stretches of a run, in order.

    Args:
        events: of events.jsonl, in the order of the file.
        process_times: when processes took hold of the run: an error after a later one of these is that one's.
    """
    found = list[Stretch]()
    rollback: float | None = None
    for event, details in events:
        if event.event in BEGINNINGS:
            found.append(_begun(event, details, rollback))
            rollback = None
            continue
        if event.event == "rollback":
            rollback = event.time
        if found:
            _take(found[-1], event, details, process_times)
    return found


def attempts_of(stretches: Sequence[Stretch], known: Sequence[float]) -> list[Attempt]:
    """Join the stretches of each process.

    Args:
        stretches: of a run, in order.
        known: seconds that the steps of each stretch took, with their saves and evaluations.

    Returns:
        Attempts that do not overlap: each ends at the beginning of the next one at the latest, for a process that had
        been cut off from its run trained in vain from there on.
    """
    attempts = list[Attempt]()
    for stretch, trained in zip(stretches, known, strict=True):
        end = max(stretch.last_record, stretch.time + trained)
        last = attempts[-1] if attempts else None
        if last is not None and _is_same_process(last.stretches[-1], stretch):
            last.stretches.append(stretch)
            last.end = max(last.end, end)
            continue
        begin = stretch.time
        if stretch.attempt_start is not None:
            begin = min(begin, stretch.attempt_start)
        if last is not None:
            # The clocks of two nodes may differ.
            begin = max(begin, last.begin)
            last.end = min(last.end, begin)
        attempts.append(Attempt(begin, [stretch], max(end, begin)))
    return attempts


def owners(stretches: Sequence[Stretch], positions: Numbers) -> NDArray[np.intp]:
    """Which stretch trained each step of a history.

    Args:
        stretches: in order; each one's position was the end of the history when it began.
        positions: (steps,) samples seen after each step, ascending.

    Returns:
        (steps,) For each the number of the last stretch that began before the step's end.
    """
    begins, numbers = list[int](), list[int]()
    for number in reversed(range(len(stretches))):
        position = stretches[number].position
        if not begins or position < begins[-1]:
            begins.append(position)
            numbers.append(number)
    places = np.searchsorted(np.array(begins[::-1]), positions, side="left") - 1
    return np.array(numbers[::-1])[np.maximum(places, 0)]


def cut_shares(stretches: Sequence[Stretch], number: int) -> dict[int, float]:
    """Who had trained what a stretch takes out of the history.

    Args:
        stretches: in order.
        number: of the stretch that takes it out.

    Returns:
        The share of each earlier stretch, by samples; they add up to 1, or it is empty.
    """
    cut = stretches[number].repeated
    if cut is None or number == 0:
        return {}
    first, last = cut
    found = dict[int, float]()
    top = last
    for earlier in reversed(range(number)):
        position = max(stretches[earlier].position, first)
        if position < top:
            found[earlier] = float(top - position)
            top = position
        if top <= first:
            break
    total = sum(found.values())
    return {earlier: samples / total for earlier, samples in found.items()} if total else {}


def _begun(event: Event, details: Mapping[str, Any], rollback: float | None) -> Stretch:
    position = count(details.get("samples_seen")) or 0
    stretch = Stretch(event.time, position, amount(details.get("attempt_start")), details)
    stretch.last_record = event.time
    stretch.rolled_back_at = rollback
    samples, took = details.get("repeated_samples"), amount(details.get("repeated_seconds"))
    if isinstance(samples, list) and len(samples) == 2 and took is not None:
        first, last = count(samples[0]), count(samples[1])
        if first is not None and last is not None and first < last:
            stretch.repeated, stretch.repeated_seconds = (first, last), took
    return stretch


def _take(
    stretch: Stretch, event: Event, details: Mapping[str, Any], times: Sequence[float]
) -> None:
    """Note an event in the stretch that it follows."""
    text = details.get("reason") if event.event == "stop" else details.get("message")
    words = text if isinstance(text, str) else ""
    is_error = event.event == "error" and not words.startswith(_SAVE_FAILED)
    if is_error and (stretch.ending or any(stretch.time < each <= event.time for each in times)):
        return  # of a later start that failed before it trained
    stretch.last_record = max(stretch.last_record, event.time)
    if is_error or event.event in _ENDINGS:
        stretch.ending = f"{event.event}: {words}" if words else event.event


def _is_same_process(one: Stretch, other: Stretch) -> bool:
    return one.attempt_start is not None and one.attempt_start == other.attempt_start
