"""Where on the samples axis an event belongs: the trainer writes it with some events, others follow from their neighbours."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from configs.run_files import Event
from train.report.columns import Columns
from train.report.event_fields import BEGINNINGS, count

# At these nothing goes on: they belong to where their attempt has ended.
_ENDINGS = ("error", "hang", "stop", "done")
_FREQUENT = ("checkpoint", "checkpoint_copy")
# More events than this have no exact rows: those that are rare have them first.
_MOST_EXACT = 120


@dataclass(frozen=True)
class Placed:
    """An event with its position."""

    kind: str
    time: float
    """Seconds since the epoch; 0: not known."""
    details: dict[str, Any]
    at: float
    """Samples seen."""
    until: float | None = None
    """Where its stretch ends: what a rollback has cut off, or a resume trains again; None: it has no stretch."""


def placed(events: Sequence[tuple[Event, dict[str, Any]]], metrics: Columns) -> list[Placed]:
    """Place the events of a run.

    Args:
        events: each with its details, in order.
        metrics: of the run.
    """
    places = _walked(events, metrics)
    return [
        Placed(event.event, event.time, details, *place)
        for (event, details), place in zip(events, places, strict=True)
    ]


def exact_positions(events: Sequence[Placed]) -> list[float]:
    """Positions around which curves keep all rows: not those of checkpoints, which are many and change nothing."""
    by_kind: dict[str, list[float]] = {}
    for event in events:
        if event.kind not in _FREQUENT:
            places = [event.at] if event.until is None else [event.at, event.until]
            by_kind.setdefault(event.kind, []).extend(places)
    chosen = list[float]()
    for positions in sorted(by_kind.values(), key=len):
        chosen += positions[: max(0, _MOST_EXACT - len(chosen))]
    return chosen


def _walked(
    events: Sequence[tuple[Event, dict[str, Any]]], metrics: Columns
) -> Iterator[tuple[float, float | None]]:
    ends = _ends_of_attempts(events, metrics)
    attempt, here = -1, 0.0
    for event, details in events:
        if event.event in BEGINNINGS:
            attempt += 1
            here = _position(details, metrics)[0] or 0.0
            yield here, _last_of_two(details.get("repeated_samples"))
            continue
        at, until = _position(details, metrics)
        if at is None:
            is_ending = event.event in _ENDINGS and 0 <= attempt < len(ends)
            at = ends[attempt] if is_ending else here
        yield at, until
        if event.event != "rollback":
            here = max(here, at)


def _position(details: dict[str, Any], metrics: Columns) -> tuple[float | None, float | None]:
    """Where an event's own details place it, and where its stretch ends."""
    back = count(details.get("checkpoint_samples"))  # a rollback
    if back is not None:
        return back, count(details.get("found_samples"))
    seen = details.get("samples_seen")
    at = _last_of_two(seen) if isinstance(seen, list) else count(seen)
    if at is not None:
        return at, None
    step = count(details.get("step"))
    if step is not None:
        steps, samples = metrics.column("step"), metrics.column("samples_seen")
        row = int(np.searchsorted(steps, step))
        if row < len(steps) and steps[row] == step:
            return float(samples[row]), None
    return None, None


def _ends_of_attempts(
    events: Sequence[tuple[Event, dict[str, Any]]], metrics: Columns
) -> list[float]:
    """Samples seen at the end of each attempt: where the next one began, and what that has trained again."""
    begins = [details for event, details in events if event.event in BEGINNINGS]
    ends = list[float]()
    for details in begins[1:]:
        until = _last_of_two(details.get("repeated_samples"))
        ends.append((_position(details, metrics)[0] or 0.0) if until is None else until)
    return [*ends, metrics.last("samples_seen") or 0.0]


def _last_of_two(value: Any) -> float | None:
    return count(value[1]) if isinstance(value, list) and len(value) == 2 else None
