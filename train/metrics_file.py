"""metrics.jsonl: one JSON object per step, the history of a run, which its checkpoints verify by a checksum.

Each checkpoint keeps a checksum of the lines before it. A start continues from a checkpoint only with these lines: a
file that was damaged, or mixed with another run's, is never taken for the run's history.
"""

import contextlib
import json
import shutil
import zlib
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from configs.errors import RecordError, RunFolderError
from configs.run_files import MetricsLine, finite, metrics_line
from configs.run_lines import whole_lines
from train.full_disk import LineFile
from train.metrics import Metrics, to_json_value
from train.small_files import renewed, replace_file
from train.trackers import Tracker

_SECONDS = "speed/seconds_per_step"
_ADVICE = (
    "Restore the file, or start another run from the weights with run.name=NAME "
    "checkpoint.init_from=CHECKPOINT."
)


class StoredMetrics:
    """The lines that a start finds.

    Args:
        path: the file; need not exist.

    Raises:
        RecordError: it is not a readable file.
        OSError: the file system failed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = whole_lines(path)

    def fault_before(self, step: int, checksum: int | None = None) -> str | None:
        """Why the file does not hold the lines of steps 1 to `step` of this run; None: it does.

        Args:
            step: of a checkpoint.
            checksum: of these lines, as the checkpoint knows it; None: it is of an older version, and all that can be
                seen is whether the lines follow on each other.
        """
        if checksum is None or step > len(self._lines):
            return None if step <= self._sound else self._fault
        if self._checksums[step] == checksum:
            return None
        if self._sound < step:
            return self._fault
        return f"{self._path}: its first {step:,} lines are not those that were there when the checkpoint was written"

    def up_to(self, step: int, checksum: int | None = None) -> list[bytes]:
        """The lines of steps 1 to `step`, each with its end.

        Raises:
            RunFolderError: the file does not hold them.
        """
        fault = self.fault_before(step, checksum)
        if fault is not None:
            raise RunFolderError(
                f"{fault}. It has lines for {min(self._sound, step):,} of the {step:,} steps before the checkpoint. "
                f"{_ADVICE}"
            )
        return self._lines[:step]

    def after(self, step: int) -> list[bytes]:
        """The lines after a step, each with its end."""
        return self._lines[step:]

    def repeated_after(self, step: int) -> dict[str, Any]:
        """What a start from the checkpoint of a step trains again, for its event; empty: nothing.

        Returns:
            `repeated_steps`, first and last; `repeated_samples`, where the first begins and the last ends;
            `repeated_seconds`, what they took.
        """
        lines = list[MetricsLine]()
        for line in self._lines[max(step - 1, 0) :]:
            with contextlib.suppress(RecordError):
                values = metrics_line(line, str(self._path))
                if {"step", "samples_seen"} <= values.keys():
                    lines.append(values)
        cut = [line for line in lines if (finite(line["step"]) or 0) > step]
        if not cut:
            return {}
        begin = lines[0]["samples_seen"] if lines[0]["step"] == step else 0
        return {
            "repeated_steps": [cut[0]["step"], cut[-1]["step"]],
            "repeated_samples": [begin, cut[-1]["samples_seen"]],
            "repeated_seconds": sum(finite(line.get(_SECONDS)) or 0.0 for line in cut),
        }

    def is_short_of(self, step: int) -> bool:
        """True if nothing is wrong with the file but that it ends before this step."""
        return self._sound == len(self._lines) < step

    def keep_aside(self) -> Path:
        """Copy the file as it is to a name beside it that is free; returns that."""
        number = 1
        while True:
            aside = self._path.with_name(f"{self._path.stem}.damaged-{number}{self._path.suffix}")
            try:
                with self._path.open("rb") as source, aside.open("xb") as target:
                    shutil.copyfileobj(source, target)
                return aside
            except FileExistsError:
                number += 1

    @cached_property
    def _checksums(self) -> list[int]:
        """CRC-32 of the first 0, 1, 2, ... lines."""
        return list(accumulate(self._lines, lambda crc, line: zlib.crc32(line, crc), initial=0))

    @cached_property
    def _sound(self) -> int:
        """How many lines from the first on follow on each other."""
        return self._looked_through[0]

    @property
    def _fault(self) -> str:
        """What is wrong with the line after those."""
        return self._looked_through[1]

    @cached_property
    def _looked_through(self) -> tuple[int, str]:
        before: MetricsLine = {"samples_seen": 0, "tokens_seen": 0}
        for count, line in enumerate(self._lines):
            where = f"{self._path}, line {count + 1:,},"
            try:
                values = metrics_line(line, where)
            except RecordError as error:
                return count, str(error).rstrip(".")
            if values.get("step") != count + 1:
                return count, f"{where} is of step {values.get('step')}"
            if not _follows(values, before):
                return count, f"{where} does not follow on the line before it"
            before = values
        return len(self._lines), f"{self._path} ends with step {len(self._lines):,}"


class JsonlTracker(Tracker):
    """Writes the file: whole lines, no gaps.

    A start copies the lines up to its checkpoint into a new file and renames it over the old one: what was trained
    after the checkpoint is trained again, a torn last line is dropped, and an earlier process that is still running writes
    into a file that nobody reads.

    Args:
        path: the file.
        step: of the checkpoint that this start continues; 0 for a new run.
        checksum: of the lines up to it, as the checkpoint knows it; None: it does not.
        kept: gets the lines after it, if there are any; None: they are dropped, to be trained again.
        stored: the lines in it; None: they are read here.

    Raises:
        RunFolderError: the file does not hold the lines up to the checkpoint.
    """

    def __init__(
        self,
        path: Path,
        step: int,
        checksum: int | None = None,
        kept: Path | None = None,
        stored: StoredMetrics | None = None,
    ) -> None:
        stored = stored or StoredMetrics(path)
        content = b"".join(stored.up_to(step, checksum))
        if kept is not None and (cut := stored.after(step)):
            kept.parent.mkdir(exist_ok=True)
            replace_file(kept, b"".join(cut).decode("utf-8", "replace"))
        self._last_step = step
        self._checksum = zlib.crc32(content)
        self._file = LineFile(renewed(path, content))

    def log_metrics(self, line: Metrics) -> None:
        """Append a line."""
        assert line["step"] == self._last_step + 1, "a line for each step, without gaps"
        self._last_step = line["step"]
        text = json.dumps({key: to_json_value(value) for key, value in line.items()})
        self._checksum = zlib.crc32(text.encode() + b"\n", self._checksum)
        self._file.write(text)

    def keep_checksum(self) -> dict[str, Any]:
        """What a checkpoint keeps of the lines so far."""
        return {"metrics_crc32": self._checksum}

    def sync(self) -> None:
        """Bring the lines to the disk: a checkpoint without those before it would be of no use.

        Raises:
            OSError: the disk refuses.
        """
        self._file.sync()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _follows(values: MetricsLine, before: MetricsLine) -> bool:
    """True if a run that went on from one line can have written the other; a newer version may add metrics."""
    has_advanced = all(
        float(values.get(key) or 0) > float(before[key] or 0)
        for key in ("samples_seen", "tokens_seen")
    )
    return has_advanced and before.keys() <= values.keys()


def checksum_in(extra: dict[str, Any]) -> int | None:
    """The checksum of metrics.jsonl that a checkpoint keeps; None: it has none that could be one."""
    found = extra.get("metrics_crc32")
    return found if type(found) is int else None
