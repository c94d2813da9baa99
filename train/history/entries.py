"""A run's events and interventions as one list in the order of their times.

interventions.json is what every start applies, so it is the truth for rollbacks and schedules; the event of one may be
missing, if the process was killed between both. The other events are those of events.jsonl.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import RecordError
from configs.interventions import EarlierSchedule, Interventions, Rollback, read_interventions
from configs.records import convert
from configs.run_files import Event, read_events
from configs.run_paths import INTERVENTIONS, RunPaths
from train.history.kinds import CHECKPOINT, COPY, ROLLBACK, SKIP, Saved, Skip, counted, words_of
from train.history.sums import Stretch
from train.stability.rollback_words import measures


@dataclass(frozen=True)
class Entry:
    """An item of a history."""

    time: float
    """In seconds since the epoch; 0: not known."""
    text: str


@dataclass(frozen=True)
class Quiet:
    """An event that is only summed up."""

    time: float
    kind: str
    what: Skip | Saved


def read_history(run: Path, report: Callable[[str], None]) -> list[Entry]:
    """Read what happened to a run; nothing if its folder has no record of it.

    Args:
        run: run folder.
        report: told once of each file that cannot be read in part; the damaged lines are left out.

    Raises:
        RecordError: events.jsonl is no file that can be read.
        OSError: the file system failed.
    """
    events = read_events(run, report)
    try:
        known = read_interventions(run)
    except RecordError as error:
        report(f"{error} The rollbacks are those of the events.")
        known = Interventions()
    found: list[Entry | Quiet] = [*_interventions(known)]
    damaged = list[str]()
    for event, details in events:
        try:
            found += _of_event(event, details, known, RunPaths(run).events)
        except RecordError as error:
            damaged.append(str(error))
    if damaged:
        others = f" And {counted(len(damaged) - 1, 'other event')}." if len(damaged) > 1 else ""
        report(f"{damaged[0]}{others} What cannot be read is left out.")
    return list(_summed(sorted(found, key=lambda each: each.time)))


def _interventions(known: Interventions) -> Iterator[Entry]:
    for schedule in known.schedules:
        yield Entry(schedule.time, _schedule_words(schedule))
    for number, rollback in enumerate(known.rollbacks, start=1):
        yield Entry(rollback.time, f"rollback {number}: {rollback_words(rollback)}")


def _of_event(
    event: Event, details: dict[str, Any], known: Interventions, path: Path
) -> list[Entry | Quiet]:
    """What an event adds; nothing for a rollback that is told of already.

    Raises:
        RecordError: its fields are of other types.
    """
    where = f"{path}: {event.event}"
    if event.event == SKIP:
        return [Quiet(event.time, SKIP, convert(details, Skip, where))]
    if event.event in (CHECKPOINT, COPY):
        return [Quiet(event.time, event.event, convert(details, Saved, where))]
    if event.event == ROLLBACK:
        decided = convert({**details, "time": event.time}, Rollback, where)
        if decided in known.rollbacks:
            return []
        text = f"rollback that {INTERVENTIONS} does not have: {rollback_words(decided)}"
        return [Entry(event.time, text)]
    return [Entry(event.time, words_of(event.event, details, where))]


def _summed(found: Sequence[Entry | Quiet]) -> Iterator[Entry]:
    stretch = Stretch()
    for each in found:
        if isinstance(each, Entry):
            yield from _told(stretch)
            stretch = Stretch()
            yield each
            continue
        stretch.last_time = each.time
        if isinstance(each.what, Skip):
            stretch.skips.append(each.what)
        elif each.kind == COPY:
            stretch.copies.append(each.what)
        else:
            stretch.checkpoints.append(each.what)
    yield from _told(stretch)


def _told(stretch: Stretch) -> Iterator[Entry]:
    for text in stretch.words():
        yield Entry(stretch.last_time, text)


def rollback_words(rollback: Rollback) -> str:
    """A rollback in a sentence: where it was found, where it goes back to, and what it changes."""
    found = f"from step {rollback.found_step:,} (sample {rollback.found_samples:,})"
    back = f"back to the checkpoint of step {rollback.checkpoint_step:,} (sample {rollback.checkpoint_samples:,})"
    return f"{', '.join([f'{found} {back}', *measures(rollback)])}. Reason: {rollback.reason}."


def _schedule_words(schedule: EarlierSchedule) -> str:
    optim = schedule.optim
    ramp = "" if optim.batch_ramp is None else " after a ramp"
    points = ", ".join(f"{value:g} at {seen:,.0f}" for seen, value in schedule.embedding_shrink)
    text = (
        f"schedules change at sample {schedule.until_samples:,}; until there: learning rate {optim.lr:g} "
        f"({optim.schedule.value}), batch {optim.global_batch_size:,}{ramp}, embedding shrink {points}"
    )
    if schedule.rewarmup_samples:
        text += f"; the new learning rate warms up over {schedule.rewarmup_samples:,} samples"
    return text
