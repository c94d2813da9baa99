"""The panel of a run's goodput: what its wall time was spent on, over all attempts."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from configs.terminal import visible
from train.report.goodput import IDLE, PARTS, AttemptTime, Goodput
from train.report.panel import Panel
from train.report.read import RunData

# Attempts that are drawn and listed; the sums are those of all.
_MOST_ATTEMPTS = 400
_LONGEST_WORDS = 200
_NOTE = (
    "Goodput is the time of the steps that the run consists of now and that updated its weights, divided by the wall time "
    "from the first start to the last record. Lost are: evaluation, waiting for checkpoints, steps whose update was "
    "left out, steps that a rollback took out, steps that were trained again after a restart, start-up, idle time between "
    "attempts, and the rest of each attempt (other). The upper bar is the whole run. Below: each attempt, as wide as it was long and "
    "divided by its parts, so that equal areas are equal times."
)

_HEADINGS = ("seconds", *(f"{label}, %" for label in PARTS.values()), "idle before, s")


def panels(runs: Sequence[RunData]) -> list[Panel]:
    """A panel for each run that has an event of a start."""
    found = [(number, run, run.goodput) for number, run in enumerate(runs)]
    is_one = len(runs) == 1
    return [
        _panel(run, each, "goodput" if is_one else f"goodput/{number}", is_one=is_one)
        for number, run, each in found
        if each is not None
    ]


def shown_share(share: float | None) -> str:
    """A share in percent, for people; a dash for one that does not exist."""
    return "\u2013" if share is None else f"{100 * share:.1f} %"


def _panel(run: RunData, found: Goodput, key: str, *, is_one: bool) -> Panel:
    shown = found.attempts[-_MOST_ATTEMPTS:]
    first = len(found.attempts) - len(shown)
    ends = _reached(run, found)
    notes = [_NOTE]
    if first:
        notes.append(f"The last {len(shown):,} of {len(found.attempts):,} attempts are listed.")
    if any(each.attempt.stretches[0].attempt_start is None for each in found.attempts):
        notes.append(
            "An older program did not record when its process began: its start-up is idle time here."
        )
    title = f"Goodput {shown_share(found.share)}"
    parts = found.parts
    return Panel(
        key=key,
        title=title if is_one else f"{title}: {run.name}",
        group="Reliability",
        kind="goodput",
        data={
            "share": found.share,
            "seconds": found.seconds,
            "parts": [
                {"name": name, "label": label, "seconds": parts[name]}
                for name, label in (*PARTS.items(), (IDLE, "idle between attempts"))
            ],
            "attempts": [
                _attempt(number, each, ends[number - 1])
                for number, each in enumerate(shown, start=first + 1)
            ],
        },
        note=" ".join(notes),
        columns=(
            "attempt",
            "began (UTC)",
            "ranks",
            "from sample",
            "to sample",
            "ended",
            *_HEADINGS,
        ),
        rows=[
            *(_row(number, each, ends[number - 1]) for number, each in enumerate(shown, first + 1)),
            [
                "all",
                *[""] * 5,
                _seconds(found.seconds),
                *_shares(parts, found.seconds),
                _seconds(parts[IDLE]),
            ],
        ],
        is_wide=True,
    )


def _attempt(number: int, each: AttemptTime, end: int) -> dict[str, Any]:
    attempt = each.attempt
    return {
        "number": number,
        "begin": attempt.begin,
        "end": attempt.end,
        "from": attempt.stretches[0].position,
        "to": end,
        "ending": _ending(each),
        "parts": [each.parts[name] for name in PARTS],
    }


def _row(number: int, each: AttemptTime, end: int) -> list[Any]:
    attempt = each.attempt
    ranks = attempt.stretches[-1].details.get("world_size")
    return [
        number,
        _date(attempt.begin),
        ranks if type(ranks) is int else None,
        attempt.stretches[0].position,
        end,
        _ending(each),
        _seconds(each.seconds),
        *_shares(each.parts, each.seconds),
        _seconds(each.idle_before),
    ]


def _shares(parts: Mapping[str, float], whole: float) -> list[Any]:
    return [round(100 * parts[name] / whole, 2) if whole > 0 else None for name in PARTS]


def _ending(each: AttemptTime) -> str:
    return visible(each.attempt.ending, keep="")[:_LONGEST_WORDS] or "not recorded"


def _reached(run: RunData, found: Goodput) -> list[int]:
    """Samples seen at the end of each attempt: what the next one has trained again lies before it."""
    ends = list[int]()
    for after in found.attempts[1:]:
        begun = after.attempt.stretches[0]
        ends.append(begun.position if begun.repeated is None else begun.repeated[1])
    return [*ends, int(run.metrics.last("samples_seen") or 0)]


def _seconds(value: float) -> float:
    return round(value, 3 if value < 100 else 1)


def _date(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S}"
    except (OverflowError, ValueError):
        return ""
