"""The history of a run as text."""

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

from configs.errors import RecordError
from configs.nearby import without_lines
from configs.run_paths import EVENTS
from configs.run_state import shown_state
from configs.terminal import hanging, visible
from train.history.entries import Entry, read_history

_NO_TIME = "-" * len("2022-10-05 17:03:11")


def history(run: Path, report: Callable[[str], None], width: int | None) -> str:
    """The history of a run as text.

    Args:
        run: run folder.
        report: told of what cannot be read, and is left out.
        width: columns of the terminal; None: lines are not folded.

    Raises:
        RunFolderError: the folder has no record of a run.
        RecordError: its events cannot be read.
        OSError: the file system failed.
    """
    entries = read_history(run, report)
    if not entries:
        raise without_lines(run, EVENTS, "python -m train.history runs/default")
    try:
        state = shown_state(run)
    except RecordError as error:
        report(str(error))
        state = "unknown"
    head = f"{visible(str(run), keep='')}: {state}; times in UTC"
    return "\n".join([head, *_lines(entries, width)])


def _lines(entries: Sequence[Entry], width: int | None) -> list[str]:
    return [
        hanging(f"{_shown_time(entry.time)}  ", visible(entry.text, keep=""), width)
        for entry in entries
    ]


def _shown_time(time: float) -> str:
    if not time:
        return _NO_TIME
    try:
        return f"{datetime.fromtimestamp(time, timezone.utc):%Y-%m-%d %H:%M:%S}"
    except (OverflowError, ValueError):  # after the year 9999
        return _NO_TIME
