"""The command line: python -m train.history runs/default."""

import argparse
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

from configs.errors import EXIT_DONE, EXIT_PEER_FAILED, EXIT_USER_INPUT, RecordError, UserError
from configs.nearby import without_lines
from configs.run_paths import EVENTS
from configs.run_state import shown_state
from configs.terminal import columns, hanging, prepare_streams, tell, visible
from configs.version import VERSION, ShowVersion
from train.failures import may_pass
from train.history.entries import Entry, read_history

_NO_TIME = "-" * len("2022-10-05 17:03:11")


def cli(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    prepare_streams()
    parser = argparse.ArgumentParser(
        prog="python -m train.history",
        description=(
            "What happened to a run, in order: starts and resumes with their layouts, changes of the configuration and "
            "the schedules, spikes, rollbacks and what they left out, slow ranks, weights that differ, hangs, errors. "
            "Checkpoints and steps that were left out are summed up. Times are in UTC."
        ),
    )
    parser.add_argument(VERSION, action=ShowVersion)
    parser.add_argument("run", type=Path, help="run folder")
    options = parser.parse_args(arguments)

    def report(text: str) -> None:
        tell(text, sys.stderr)

    try:
        tell(history(options.run, report, columns()))
    except UserError as error:
        report(str(error))
        return EXIT_USER_INPUT
    except OSError as error:
        report(f"{options.run} cannot be read: {error.strerror}.")
        return EXIT_PEER_FAILED if may_pass(error) else EXIT_USER_INPUT
    return EXIT_DONE


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


if __name__ == "__main__":
    sys.exit(cli())
