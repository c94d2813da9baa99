"""details.jsonl and samples.jsonl: what a run reports at intervals, one JSON object a line.

Both follow resume and rollback as metrics.jsonl does, but no start relies on them: no checkpoint keeps a checksum of their
lines, a line that cannot be decoded is left out, and one that cannot be written is missing. A file exists once there is a line for it.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from configs.errors import RecordError
from configs.run_files import detail_line
from configs.run_lines import whole_lines
from configs.terminal import tell
from glm.checkpoint.disk import sync_to_disk
from train.full_disk import LineFile
from train.metrics import to_json_value
from train.small_files import renewed, replace_file
from train.trackers import Tracker


class IntervalFile:
    """One of the two files.

    A start keeps the lines up to its checkpoint: what was trained after it is trained again. An earlier process that
    still runs writes into a file that nobody reads.

    Args:
        path: the file; need not exist.
        step: of the checkpoint that this start continues; 0 for a new run.
        kept: gets the lines after it, if there are any; None: they are dropped.

    Raises:
        RecordError: there is a file that cannot be read.
        OSError: the file system failed.
    """

    def __init__(self, path: Path, step: int, kept: Path | None = None) -> None:
        self._path = path
        self._file: LineFile | None = None
        self._has_failed = False
        if not path.exists():
            return
        before, after = _divided(path, step)
        if kept is not None and after:
            kept.parent.mkdir(exist_ok=True)
            replace_file(kept, b"".join(after).decode("utf-8", "replace"))
        self._file = LineFile(renewed(path, b"".join(before)))

    def write(self, line: dict[str, Any]) -> None:
        """Append a line: values are numbers, texts, null, and lists and objects of them."""
        with self._left_out_on_error():
            if self._has_failed:
                return
            if self._file is None:
                self._file = LineFile(_created(self._path))
            self._file.write(json.dumps(_json_values(line)))

    def sync(self) -> None:
        """Bring the lines to the disk."""
        with self._left_out_on_error():
            if self._file is not None:
                self._file.sync()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @contextlib.contextmanager
    def _left_out_on_error(self) -> Iterator[None]:
        """Neither training nor a checkpoint needs these lines: where they cannot be written, one sentence says so."""
        try:
            yield
        except OSError as error:
            self._has_failed = True
            file, self._file = self._file, None
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()
            reason = "a later attempt has made it" if _is_there(error) else error.strerror
            tell(
                f"{self._path} cannot be written: {reason}. It misses what comes now; training goes on.",
                sys.stderr,
            )


class IntervalTracker(Tracker):
    """Writes both files.

    Args:
        details: path of details.jsonl.
        samples: path of samples.jsonl.
        step: of the checkpoint that this start continues; 0 for a new run.
        kept: where the lines after it are kept, for each file; None: they are dropped.

    Raises:
        RecordError, OSError: see IntervalFile.
    """

    def __init__(
        self, details: Path, samples: Path, step: int, kept: Callable[[Path], Path | None]
    ) -> None:
        self._details = IntervalFile(details, step, kept(details))
        self._samples = IntervalFile(samples, step, kept(samples))

    def log_details(self, line: dict[str, Any]) -> None:
        """See Tracker."""
        self._details.write(line)

    def log_samples(self, line: dict[str, Any]) -> None:
        """See Tracker."""
        self._samples.write(line)

    def sync(self) -> None:
        """See Tracker."""
        self._details.sync()
        self._samples.sync()

    def close(self) -> None:
        """See Tracker."""
        self._details.close()
        self._samples.close()


def _created(path: Path) -> TextIO:
    """Make a file that is not there, and bring its name to the disk.

    A rename would put it in the place of the file of a later attempt, if this one has been superseded.
    """
    file = path.open("x", encoding="utf-8")
    sync_to_disk(path.parent)
    return file


def _is_there(error: OSError) -> bool:
    return isinstance(error, FileExistsError)


def _divided(path: Path, step: int) -> tuple[list[bytes], list[bytes]]:
    """The lines up to a step, and those after it."""
    before: list[bytes] = []
    after: list[bytes] = []
    for count, line in enumerate(whole_lines(path), start=1):
        try:
            values = detail_line(line, f"{path}, line {count:,}")
        except RecordError:
            continue
        (before if values.get("step", 0) <= step else after).append(line)
    return before, after


def _json_values(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json_values(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_values(inner) for inner in value]
    return to_json_value(value)
