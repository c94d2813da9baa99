"""The status.json of a run, why it stopped, and where it was slow. Imports the standard library only: job scripts ask often."""

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import RecordError
from configs.files import read_text
from configs.run_lines import json_object, whole_lines
from configs.run_paths import RunPaths

FORMAT_VERSION = 1
STATES = ("running", "done", "stopped", "failed", "unknown")

_COUNT, _SECONDS, _LONGEST_TEXT = 2**62, 2.0**40, 2**16
_SHOWN = 80
SLOW_RANK = "slow_rank"
"""Event: a rank is slow from now on, or no longer (train/rank_checks.py)."""
# Of a name that a job script may take.
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}")
# Events at which a process begins to train: earlier events belong to other processes.
_BEGINNINGS = ("start", "resume")


@dataclass(frozen=True)
class Status:
    """status.json: the state of a run, as its last process has written it."""

    format_version: int = FORMAT_VERSION
    generation: int = 0
    state: str = "unknown"
    """One of STATES."""
    samples_seen: int = 0
    message: str = ""
    time: float = 0.0
    """Time of the write, by the clock of the machine that wrote it."""


def read_status(run: Path) -> Status | None:
    """Read status.json; None if there is none.

    Raises:
        RecordError: it is not one, or of a newer version.
        OSError: the file system failed.
    """
    fields = status_fields(run)
    return None if fields is None else Status(**fields)


def status_fields(run: Path) -> dict[str, Any] | None:
    """The fields of a `Status` that status.json has, in its order; None if there is no such file.

    Raises:
        RecordError: it is not one, or of a newer version.
        OSError: the file system failed.
    """
    path = RunPaths(run).status
    try:
        stored = json_object(read_text(path), str(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    found = {name: value for name, value in stored.items() if name in Status.__annotations__}
    if not found:
        raise RecordError(f"{path} is damaged or not of this program: it does not describe a run.")
    for name, value in found.items():
        if not _fits(name, value):
            raise RecordError(
                f"{path} is damaged or not of this program: {name} is {repr(value)[:_SHOWN]}."
            )
    version = found.get("format_version", FORMAT_VERSION)
    if version > FORMAT_VERSION:
        raise RecordError(
            f"{path} has format version {version}; this program knows {FORMAT_VERSION}. Use a newer one."
        )
    return found


def stop_reason(run: Path) -> str | None:
    """Why the last process of a run stopped on request, from events.jsonl; None: it did not, or logged no reason.

    Lines that cannot be read are passed over.

    Raises:
        RecordError: events.jsonl cannot be read.
        OSError: the file system failed.
    """
    path = RunPaths(run).events
    for line in reversed(whole_lines(path)):
        with contextlib.suppress(RecordError):
            event = json_object(line, str(path))
            if event.get("event") in _BEGINNINGS:
                return None
            reason = event.get("reason")
            if event.get("event") == "stop" and isinstance(reason, str):
                return reason
    return None


def slow_hosts(run: Path) -> list[str]:
    """Hosts of the ranks that the last process of a run has named as slow, and that stayed so, in that order.

    Lines that cannot be read are passed over.

    Raises:
        RecordError: events.jsonl cannot be read.
        OSError: the file system failed.
    """
    path = RunPaths(run).events
    slow: dict[Any, str] = {}
    for line in whole_lines(path):
        with contextlib.suppress(RecordError):
            event = json_object(line, str(path))
            rank, host = event.get("rank"), event.get("host")
            if event.get("event") in _BEGINNINGS:
                slow.clear()
            elif event.get("event") == SLOW_RANK and isinstance(rank, int):
                slow.pop(rank, None)
                if event.get("state") == "slow" and isinstance(host, str) and _HOST.fullmatch(host):
                    slow[rank] = host
    return list(dict.fromkeys(slow.values()))


def _fits(name: str, value: Any) -> bool:
    if name == "state":
        return value in STATES
    if name == "message":
        return isinstance(value, str) and len(value) <= _LONGEST_TEXT
    if isinstance(value, bool):
        return False
    if name == "time":
        return isinstance(value, (int, float)) and 0 <= value < _SECONDS
    return isinstance(value, int) and 0 <= value < _COUNT
