"""The panel of the pipeline schedule: the passes of each stage in one step as they were measured, and how long stages waited."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from configs.pipeline import bubble
from train.report.event_fields import count
from train.report.panel import Panel
from train.report.read import RunData

_KEY = "pipeline/passes"
_KINDS = ("forward", "backward")
_MOST_STAGES, _MOST_PASSES, _MOST_DRAWN = 1024, 2**17, 6000


@dataclass(frozen=True)
class Pass:
    """A pass of one micro-batch through one chunk of a stage."""

    kind: str
    """One of "forward", "backward"."""
    micro_batch: int
    chunk: int
    start: float
    """In seconds since the step began."""
    end: float


@dataclass(frozen=True)
class Schedule:
    """A step."""

    step: int
    stages: tuple[tuple[Pass, ...], ...]
    """The passes of each stage in the order of their beginnings; at least one pass in all."""

    @property
    def start(self) -> float:
        """When the first pass of any stage begins."""
        return min(each.start for stage in self.stages for each in stage)

    @property
    def end(self) -> float:
        """When the last pass of any stage ends."""
        return max(each.end for stage in self.stages for each in stage)

    @property
    def seconds(self) -> float:
        """Between these."""
        return self.end - self.start

    @property
    def bubble(self) -> float | None:
        """Share of the stages' time between the first and the last pass in which they ran none; None for no time."""
        whole = len(self.stages) * self.seconds
        return 1 - sum(map(busy, self.stages)) / whole if whole > 0 else None

    @property
    def ideal(self) -> float:
        """The same with passes of equal length and transfers that take no time."""
        return bubble(len(self.stages), self.num_micro_batches, self.num_chunks)

    @property
    def num_micro_batches(self) -> int:
        """Of the step."""
        return max(1, len({each.micro_batch for stage in self.stages for each in stage}))

    @property
    def num_chunks(self) -> int:
        """Parts of the model on each stage."""
        return max(1, len({each.chunk for stage in self.stages for each in stage}))


def busy(passes: Sequence[Pass]) -> float:
    """Seconds in which a stage ran a pass; passes that overlap count once."""
    total, until = 0.0, -math.inf
    for each in sorted(passes, key=lambda found: found.start):
        total += max(0.0, each.end - max(each.start, until))
        until = max(until, each.end)
    return total


def schedule_in(line: dict[str, Any]) -> Schedule | None:
    """The schedule in a line of details.jsonl; None if it has none that can be drawn."""
    value = line.get(_KEY)
    if not isinstance(value, dict):
        return None
    stages, step = value.get("stages"), count(value.get("step", line.get("step")))
    if not isinstance(stages, list) or not 1 < len(stages) <= _MOST_STAGES:
        return None
    if not all(isinstance(stage, list) for stage in stages) or step is None:
        return None
    if not 0 < sum(map(len, stages)) <= _MOST_PASSES:
        return None
    found = [[_pass(each) for each in stage] for stage in stages]
    whole = [[each for each in stage if each is not None] for stage in found]
    if [len(stage) for stage in whole] != [len(stage) for stage in stages]:
        return None
    return Schedule(step, tuple(tuple(sorted(each, key=_start)) for each in whole))


def panels(runs: Sequence[RunData]) -> list[Panel]:
    """A panel for each run of several stages that has measured its passes: those of the newest attempt."""
    is_one = len(runs) == 1
    found = list[Panel]()
    for number, run in enumerate(runs):
        measured = (schedule_in(line) for line in reversed(run.details) if _KEY in line)
        schedule = next((each for each in measured if each is not None), None)
        if schedule is not None:
            key = "schedule" if is_one else f"schedule/{number}"
            found.append(_panel(run, schedule, key, is_one=is_one))
    return found


def _panel(run: RunData, schedule: Schedule, key: str, *, is_one: bool) -> Panel:
    first, whole = schedule.start, schedule.seconds
    passes = [
        [stage, _KINDS.index(each.kind), each.micro_batch, each.chunk, *_ends(each, first)]
        for stage, own in enumerate(schedule.stages)
        for each in own
    ]
    drawn = sorted(passes, key=lambda each: each[4])[:_MOST_DRAWN]
    measured = schedule.bubble
    shown = "\u2013" if measured is None else f"{100 * measured:.1f} %"
    title = f"Pipeline schedule: bubble {shown}"
    notes = [
        f"The passes of step {schedule.step:,} as they were measured. Stages ran none for {shown} of the time between the "
        f"first and the last pass; with passes of equal length and transfers that take no time it would be "
        f"{100 * schedule.ideal:.1f} % ({schedule.num_micro_batches:,} micro-batches, {len(schedule.stages)} stages, "
        f"{schedule.num_chunks} {'chunks' if schedule.num_chunks > 1 else 'chunk'} on each)."
    ]
    if len(drawn) < len(passes):
        notes.append(
            f"The first {len(drawn):,} of {len(passes):,} passes are drawn; the figures are of all."
        )
    return Panel(
        key=key,
        title=title if is_one else f"{title}: {run.name}",
        group="Pictures",
        kind="schedule",
        data={
            "step": schedule.step,
            "stages": len(schedule.stages),
            "chunks": schedule.num_chunks,
            "seconds": whole,
            "bubble": measured,
            "ideal": schedule.ideal,
            "passes": drawn,
        },
        note=" ".join(notes),
        columns=("stage", "forward passes", "backward passes", "busy, s", "idle, s", "idle, %"),
        rows=[_row(number, own, whole) for number, own in enumerate(schedule.stages)],
        is_wide=True,
    )


def _row(number: int, passes: Sequence[Pass], whole: float) -> list[Any]:
    seconds = busy(passes)
    idle = max(whole - seconds, 0.0)
    counts = [sum(each.kind == kind for each in passes) for kind in _KINDS]
    share = round(100 * idle / whole, 2) if whole > 0 else None
    return [number, *counts, float(f"{seconds:.5g}"), float(f"{idle:.5g}"), share]


def _ends(each: Pass, first: float) -> tuple[float, float]:
    return float(f"{each.start - first:.6g}"), float(f"{each.end - first:.6g}")


def _start(each: Pass) -> float:
    return each.start


def _pass(value: Any) -> Pass | None:
    if not isinstance(value, dict):
        return None
    kind, start, end = value.get("kind"), _time(value.get("start")), _time(value.get("end"))
    micro_batch, chunk = value.get("micro_batch"), value.get("chunk", 0)
    if kind not in _KINDS or start is None or end is None or end < start:
        return None
    if (
        type(micro_batch) is not int
        or type(chunk) is not int
        or not (0 <= micro_batch < 2**53 and 0 <= chunk < 2**53)
    ):
        return None
    return Pass(kind, micro_batch, chunk, start, end)


def _time(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < 2**40 else None
