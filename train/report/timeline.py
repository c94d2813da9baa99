"""The timeline: every event of the runs on the axis of the samples seen."""

from collections.abc import Sequence
from datetime import datetime, timezone

from train.report.events import LANES, OTHER_LANE, events_of
from train.report.panel import Panel
from train.report.read import RunData

# In pixels.
_MARGIN, _LANE, _LANE_OF_RUN = 70, 28, 14


def panels(runs: Sequence[RunData]) -> list[Panel]:
    """The panel of all runs; none if no run has an event."""
    events = [
        (run.name, event) for number, run in enumerate(runs) for event in events_of(run, number)
    ]
    if not events:
        return []
    lanes = list(dict.fromkeys([*LANES.values(), OTHER_LANE]))
    used = {event["lane"] for _, event in events}
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
            note="Choose an event to read it. Bars are stretches that a rollback has cut off, or a resume has trained again.",
            columns=("time", "run", "sample", "event"),
            rows=[
                [_time(event["time"]), name, event["at"], event["text"]] for name, event in events
            ],
            is_wide=True,
        )
    ]


def _time(seconds: float | None) -> str | None:
    if not seconds:
        return None
    try:
        return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S}"
    except (OverflowError, ValueError, OSError):  # after the year 9999
        return None
