"""`python -m train.wandb_missing RUN_FOLDER STEP < metrics.jsonl`: print the lines up to a step that wandb's files lack.

A long history takes tens of seconds of Python. So a start reads it in this process, at a low priority, and not in a thread of
the one that trains (`missing_from_wandb`).
"""

import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from configs.errors import RecordError
from configs.run_paths import RunPaths
from train.wandb_records import Items, missing_lines, record_files

# A tenth of a share of the processor where all of it is in use: with less, what is to be reported meanwhile would pile up.
_NICE = 10
_LONGEST_REASON = 2000
_READERS: set["subprocess.Popen[bytes]"] = set()


class AbandonedError(Exception):
    """The history is not waited for any more."""


@contextlib.contextmanager
def missing_from_wandb(folder: Path, step: int, history: BinaryIO) -> Iterator[Iterator[bytes]]:
    """Find out, in a process of its own, what wandb lacks of a run's history.

    Args:
        folder: of the run.
        step: the last one of the history.
        history: metrics.jsonl, opened before this start trains: a rollback puts another file in its place, whose lines are
            reported as they are trained. It is read from its beginning, and closed.

    Yields:
        The lines of metrics.jsonl, which wait in a temporary file.

    Raises:
        RecordError: the process has failed; the message is its last line.
        AbandonedError: see `abandon_reading`.
        OSError: it could not be started.
    """
    root = Path(__file__).parents[1]
    paths = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    with history, tempfile.TemporaryFile() as found, tempfile.TemporaryFile() as errors:
        reader = subprocess.Popen(
            [sys.executable, "-m", "train.wandb_missing", str(folder), str(step)],
            env={**os.environ, "PYTHONPATH": paths},
            stdin=history,
            stdout=found,
            stderr=errors,
            start_new_session=True,  # Ctrl-C is for the run, which then stops
        )
        _READERS.add(reader)
        code = reader.wait()
        if reader not in _READERS:
            raise AbandonedError("its history was not waited for")
        _READERS.remove(reader)
        if code:
            errors.seek(max(errors.seek(0, os.SEEK_END) - _LONGEST_REASON, 0))
            said = errors.read().decode("utf-8", "replace").strip().splitlines()
            raise RecordError(said[-1] if said else f"exit code {code}")
        found.seek(0)
        yield iter(found)


def abandon_reading() -> None:
    """End the processes that read a history."""
    with contextlib.suppress(KeyError):
        while True:
            _READERS.pop().kill()


def main(folder: str, step: str) -> None:
    """Print the missing lines."""
    os.nice(_NICE)
    from wandb.proto import wandb_internal_pb2

    messages: Any = wandb_internal_pb2

    def logged(content: bytes) -> Items:
        record = messages.Record.FromString(content)
        if record.WhichOneof("record_type") != "history":
            return ()
        items = record.history.item
        return [("/".join(item.nested_key) or item.key, item.value_json) for item in items]

    lines = itertools.islice(sys.stdin.buffer, int(step))
    for line in missing_lines(lines, record_files(RunPaths(Path(folder)).wandb), logged):
        sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
