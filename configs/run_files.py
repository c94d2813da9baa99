"""Read events.jsonl, metrics.jsonl, details.jsonl and samples.jsonl.

train/run_folder.py, train/metrics_file.py and train/details_file.py write them. Each file is read in one place, so that every command gives
the same message for a wrong one, whether it is damaged, of another program, or a folder or pipe. configs/run_status.py
reads status.json.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from configs.errors import RecordError
from configs.records import (
    Number,
    Seconds,
    ShortText,
    convert,
    decode,
)
from configs.run_lines import whole_lines
from configs.run_paths import RunPaths

T = TypeVar("T")

MetricsLine = dict[str, Number]
"""A step's metrics by name: a number, None for what does not exist, or "inf", "-inf" or "nan"."""

# Details of an event are lists of sentences, at most.
_DEEPEST_DETAIL = 8
# As in configs/records.py.
_END_OF_POSITIONS = 2**62


@dataclass(frozen=True)
class Event:
    """A line of events.jsonl."""

    event: ShortText = "unknown"
    time: Seconds = 0.0

    @classmethod
    def from_json(cls, line: bytes, where: str) -> tuple["Event", dict[str, Any]]:
        """Decode a line into the fields that every event has, and the details of this one.

        Raises:
            RecordError: the line is not an event.
        """
        values = decode(line, dict[str, Any], where)
        if _depth(values) > _DEEPEST_DETAIL:
            raise RecordError(
                f"{where} is damaged or not of this program: it is nested too deeply."
            )
        details = {key: value for key, value in values.items() if key not in ("event", "time")}
        return convert(values, cls, where), details


def read_events(run: Path, report: Callable[[str], None]) -> list[tuple[Event, dict[str, Any]]]:
    """Read events.jsonl; nothing if there is none.

    Args:
        run: run folder.
        report: told once if lines are damaged, which are left out.

    Raises:
        RecordError: it is no file that can be read.
        OSError: the file system failed.
    """
    return list(_decoded(RunPaths(run).events, Event.from_json, report))


def read_metrics(run: Path, report: Callable[[str], None]) -> list[MetricsLine]:
    """Read metrics.jsonl for people; nothing if there is none. A start reads it more strictly.

    Args:
        run: run folder.
        report: told once if lines are damaged, which are left out.

    Raises:
        RecordError: it is no file that can be read.
        OSError: the file system failed.
    """
    return list(_decoded(RunPaths(run).metrics, metrics_line, report))


def read_cut_metrics(path: Path, report: Callable[[str], None]) -> list[MetricsLine]:
    """Read the lines of metrics.jsonl that a rollback has cut off. For the arguments and errors see read_metrics.

    Args:
        path: the file.
        report: as there.
    """
    return list(_decoded(path, metrics_line, report))


def read_details(run: Path, report: Callable[[str], None]) -> list[dict[str, Any]]:
    """Read details.jsonl, what was measured at intervals; nothing if there is none. For the arguments see read_metrics.

    Raises:
        RecordError: it is no file that can be read.
        OSError: the file system failed.
    """
    return list(_decoded(RunPaths(run).details, detail_line, report))


def read_samples(run: Path, report: Callable[[str], None]) -> list[dict[str, Any]]:
    """Read samples.jsonl, the filled blanks; nothing if there is none. For the arguments see read_metrics.

    Raises:
        RecordError: it is no file that can be read.
        OSError: the file system failed.
    """
    return list(_decoded(RunPaths(run).samples, detail_line, report))


def detail_line(line: bytes, where: str) -> dict[str, Any]:
    """Decode a line of details.jsonl or samples.jsonl; beside its position the values are not checked.

    Raises:
        RecordError: it is not such a line.
    """
    values = decode(line, dict[str, Any], where)
    if _depth(values) > _DEEPEST_DETAIL:
        raise RecordError(f"{where} is damaged or not of this program: it is nested too deeply.")
    _check_position(values, ("step", "samples_seen"), where)
    return values


def metrics_line(line: bytes, where: str) -> MetricsLine:
    """Decode a line of metrics.jsonl.

    Raises:
        RecordError: it is not such a line.
    """
    values = decode(line, MetricsLine, where)
    _check_position(values, ("step", "samples_seen", "tokens_seen"), where)
    return values


def number(value: Number) -> float | None:
    """A metric as a number; None for one that does not exist."""
    return None if value is None else float(value)


def finite(value: Number) -> float | None:
    """A metric as a number; None for one that does not exist or is not finite."""
    found = number(value)
    return found if found is not None and math.isfinite(found) else None


def _decoded(
    path: Path, decode_line: Callable[[bytes, str], T], report: Callable[[str], None]
) -> Iterator[T]:
    """The lines that can be decoded; `report` is told how many cannot."""
    damaged = list[str]()
    for count, line in enumerate(whole_lines(path), start=1):
        try:
            yield decode_line(line, f"{path}, line {count:,}")
        except RecordError as error:
            damaged.append(str(error))
    if damaged:
        others = f" So are {len(damaged) - 1:,} other lines." if len(damaged) > 1 else ""
        report(f"{damaged[0]}{others} What cannot be read is left out.")


def _check_position(values: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in keys:
        value = values.get(key, 0)
        if type(value) is not int or not 0 <= value < _END_OF_POSITIONS:
            raise RecordError(f"{where} is damaged or not of this program: {key} is {value}.")


def _depth(value: object) -> int:
    """How deep lists and objects are nested; counted without recursion."""
    depth, level = 0, [value]
    while level := [
        inner
        for outer in level
        if isinstance(outer, (dict, list))
        for inner in (outer.values() if isinstance(outer, dict) else outer)
    ]:
        depth += 1
    return depth
