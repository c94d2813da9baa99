"""The timeline: every event of the runs on the axis of the samples seen."""

from collections.abc import Sequence

from train.report.events import LANES, OTHER_LANE, events_of
from train.report.panel import Panel
from train.report.read import RunData

_NOTE = "Select an event to read it or to zoom to it. Bars are stretches that a rollback has cut off, or a resume has trained again."
# In pixels.
_MARGIN, _LANE, _LANE_OF_RUN = 70, 28, 14


def panels(runs: Sequence[RunData]) -> list[Panel]:
    """The panel of all runs; none if no run has an event."""
    events = [event for number, run in enumerate(runs) for event in events_of(run, number)]
    if not events:
        return []
    lanes = list(dict.fromkeys([*LANES.values(), OTHER_LANE]))
    used = {event["lane"] for event in events}
    total = sum(len(run.events) for run in runs)
    note = _NOTE if len(events) >= total else f"{_NOTE} {len(events):,} of {total:,} events."
    return [
        Panel(
            key="overview/timeline",
            title="Timeline",
            group="Overview",
            kind="timeline",
            data={
                "lanes": [lane for lane in lanes if lane in used],
                "height": _MARGIN + len(used) * max(_LANE, _LANE_OF_RUN * len(runs)),
            },
            note=note,
            is_wide=True,
        )
    ]
