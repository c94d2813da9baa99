"""The events of a run for its timeline: each with its position, and in words, as `python -m train.history` tells it."""

from typing import Any

import numpy as np

from configs.errors import RecordError
from configs.interventions import Rollback
from configs.records import convert
from configs.terminal import visible
from train.history.entries import rollback_words
from train.history.kinds import CHECKPOINT, COPY, ROLLBACK, SKIP, words_of
from train.report.event_fields import BEGINNINGS
from train.report.positions import Placed
from train.report.read import RunData

LAYOUT_CHANGE = "layout_change"
"""A resume with another layout; the page finds these itself."""
LANES = {
    "start": "starts",
    "resume": "starts",
    "stop": "starts",
    "done": "starts",
    "checkpoint": "checkpoints",
    "checkpoint_copy": "checkpoints",
    "error": "faults",
    "hang": "faults",
    "spike": "faults",
    "slow_rank": "faults",
    "weights_differ": "faults",
    "rollback": "rollbacks",
    "skip": "left out",
    "config_change": "changes",
    LAYOUT_CHANGE: "changes",
    "numerics_change": "changes",
    "metrics_repaired": "changes",
}
"""The row of the timeline that each kind of event stands in; others stand in `OTHER_LANE`."""
OTHER_LANE = "others"


MAX_EVENTS = 2_000
"""Events of a run that the page has. Of more, those of frequent kinds are thinned out."""
_LONGEST = 1_000


def events_of(run: RunData, number: int) -> list[dict[str, Any]]:
    """The events of a run as the page has them: MAX_EVENTS at most.

    Args:
        run: the run.
        number: its place among the runs.
    """
    return [
        {
            "run": number,
            "kind": visible(event.kind, keep=""),
            "lane": LANES.get(event.kind, OTHER_LANE),
            "at": event.at,
            "until": event.until,
            "time": event.time or None,
            "text": visible(_words(event, run), keep="")[:_LONGEST],
        }
        for event in _thinned(_with_layout_changes(run.placed_events))
    ]


def _thinned(events: list[Placed]) -> list[Placed]:
    """At most MAX_EVENTS of the events: all of rare kinds, and of frequent ones as many as fit, evenly spread."""
    by_kind: dict[str, list[int]] = {}
    for place, event in enumerate(events):
        by_kind.setdefault(event.kind, []).append(place)
    kept = list[int]()
    rarest_first = sorted(by_kind.values(), key=len)
    for number, places in enumerate(rarest_first):
        share = (MAX_EVENTS - len(kept)) // (len(rarest_first) - number)
        chosen = np.linspace(0, len(places) - 1, min(len(places), share)).astype(np.int64)
        kept += [places[place] for place in np.unique(chosen).tolist()]
    return [events[place] for place in sorted(kept)]


def _words(event: Placed, run: RunData) -> str:
    where = f"{run.name}: {event.kind}"
    try:
        if event.kind == ROLLBACK:
            decided = convert({**event.details, "time": event.time}, Rollback, where)
            return f"rollback {rollback_words(decided)}"
        if event.kind in (CHECKPOINT, COPY):
            return f"{event.kind.replace('_', ' ')} {event.details.get('path', '')} at sample {event.at:,.0f}"
        if event.kind == LAYOUT_CHANGE:
            return str(event.details["message"])
        if event.kind == SKIP:
            return f"step {event.details.get('step')} left out: {event.details.get('reason')}"
        return words_of(event.kind, event.details, where)
    except RecordError:
        rest = ", ".join(f"{key} {value}" for key, value in event.details.items())
        return f"{event.kind}: {rest}"


def _with_layout_changes(events: list[Placed]) -> list[Placed]:
    """The events, and one more where a resume has another layout than the attempt before."""
    found = list[Placed]()
    before: str | None = None
    for event in events:
        found.append(event)
        if event.kind not in BEGINNINGS:
            continue
        layout = _layout(event.details)
        if None not in (before, layout) and layout != before:
            details = {"message": f"layout changes from {before} to {layout}"}
            found.append(Placed(LAYOUT_CHANGE, event.time, details, event.at))
        before = layout
    return found


def _layout(details: dict[str, Any]) -> str | None:
    sizes = {name: details.get(name) for name in ("tp", "pp", "dp")}
    if None in sizes.values():
        return None
    return " x ".join(f"{name} {size}" for name, size in sizes.items())
