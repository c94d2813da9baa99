"""The files of a run folder, as everybody who reads them sees them: where they lie and what may stand in them.

Reading only: train/run_folder.py and train/metrics_file.py write them. Each file is read in one place, so that a wrong
one - damaged, of another program, a folder or a pipe in its place - is the same message everywhere.
"""

import errno
import math
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from configs.errors import RecordError, RunFolderError
from configs.records import (
    Count,
    Number,
    Seconds,
    ShortText,
    convert,
    decode,
    read_file,
    read_record,
)

T = TypeVar("T")

FORMAT_VERSION = 1

MetricsLine = dict[str, Number]
"""A step's metrics by name: a number, None for what does not exist, or "inf", "-inf" or "nan"."""

LARGEST_LINES = 2**34
"""Bytes of a file that has a line a step."""
# Details of an event are lists of sentences, at most.
_DEEPEST_DETAIL = 8


class RunPaths:
    """Where the files of a run lie.

    Args:
        path: the run folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.identity = path / "identity.json"
        self.config = path / "config.yaml"
        self.overrides = path / "overrides.txt"
        self.source = path / "source.txt"
        self.status = path / "status.json"
        self.summary = path / "summary.json"
        self.metrics = path / "metrics.jsonl"
        self.events = path / "events.jsonl"
        self.log = path / "log.txt"
        self.stop_file = path / "stop"
        self.checkpoints = path / "checkpoints"
        self.generations = path / "generations"
        self.tokenizer = path / "tokenizer"
        self.stacks = path / "stacks"

    @property
    def files(self) -> list[Path]:
        """What a start writes or replaces."""
        return [
            self.identity,
            self.config,
            self.overrides,
            self.source,
            self.status,
            self.summary,
            self.metrics,
            self.events,
            self.log,
            self.stop_file,
        ]

    @property
    def folders(self) -> list[Path]:
        """What a start makes, and writes into."""
        return [self.checkpoints, self.generations, self.tokenizer, self.stacks]

    def check_kinds(self) -> None:
        """Refuse a folder in which another kind of thing stands in the place of a file of ours.

        A link in the place of a file is refused as well: what it leads to is not ours to replace. Folders may be links.

        Raises:
            RunFolderError: names each of them.
            OSError: the file system failed.
        """
        wrong = [path for path in self.files if _kind_of(path, follow=False) not in (None, "file")]
        wrong += [
            path for path in self.folders if _kind_of(path, follow=True) not in (None, "folder")
        ]
        if wrong:
            named = ", ".join(f"{path} ({_kind_of(path, follow=False)})" for path in wrong)
            raise RunFolderError(
                f"In the run folder something else stands where this program keeps its own: {named}. Nothing was "
                "changed. Move it away, or start another run with run.name=NAME."
            )


@dataclass(frozen=True)
class Status:
    """status.json: how a run's last process left it, or that one is at work."""

    format_version: Count = FORMAT_VERSION
    generation: Count = 0
    state: Literal["running", "done", "stopped", "failed", "unknown"] = "unknown"
    samples_seen: Count = 0
    message: ShortText = ""
    time: Seconds = 0.0
    """Of the write, by the clock of its machine."""


def read_status(run: Path) -> Status | None:
    """Read status.json; None if there is none.

    Raises:
        RecordError: it is not one, or of a newer version.
        OSError: the file system failed.
    """
    path = RunPaths(run).status
    try:
        status = read_record(path, Status)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if status.format_version > FORMAT_VERSION:
        raise RecordError(
            f"{path} has format version {status.format_version}; this program knows {FORMAT_VERSION}. Use a newer one."
        )
    return status


@dataclass(frozen=True)
class Event:
    """A line of events.jsonl."""

    event: ShortText = "unknown"
    time: Seconds = 0.0

    @classmethod
    def from_json(cls, line: bytes, where: str) -> tuple["Event", dict[str, Any]]:
        """Decode a line: what every event has, and the details of this one.

        Raises:
            RecordError: it is none.
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


def metrics_line(line: bytes, where: str) -> MetricsLine:
    """Decode a line of metrics.jsonl.

    Raises:
        RecordError: it is none.
    """
    values = decode(line, MetricsLine, where)
    for key in ("step", "samples_seen", "tokens_seen"):
        value = values.get(key, 0)
        if not isinstance(value, int) or value < 0:
            raise RecordError(f"{where} is damaged or not of this program: {key} is {value}.")
    return values


def whole_lines(path: Path) -> list[bytes]:
    """The lines of a file, each with its end; a last one that was torn is left out. Nothing if there is no file.

    Raises:
        RecordError: it is no file that can be read.
        OSError: the file system failed.
    """
    try:
        content = read_file(path, LARGEST_LINES)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [line + b"\n" for line in content.split(b"\n")[:-1]]


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


def _kind_of(path: Path, *, follow: bool) -> str | None:
    """What a name stands for; None: nothing."""
    try:
        mode = os.stat(path, follow_symlinks=follow).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "a broken link" if path.is_symlink() else None
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EACCES):
            raise
        return f"{error.strerror}"
    kinds = {
        stat.S_ISREG: "file",
        stat.S_ISDIR: "folder",
        stat.S_ISLNK: "a link",
        stat.S_ISFIFO: "a pipe",
        stat.S_ISSOCK: "a socket",
    }
    return next((name for is_one, name in kinds.items() if is_one(mode)), "a device")
