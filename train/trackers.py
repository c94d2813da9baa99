"""Where a run reports to, behind one protocol; and metrics.jsonl, which the run itself relies on.

The console with log.txt is train/console.py, wandb is train/tracker_wandb.py.
"""

import json
from pathlib import Path
from typing import Protocol

from configs.errors import RunFolderError
from train.full_disk import LineFile
from train.metrics import Metrics, to_json_value
from train.run_folder import renewed


class Tracker(Protocol):
    """Receives every step's metrics line."""

    def log(self, line: Metrics) -> None:
        """Take one step's metrics (train/metrics.py)."""
        ...

    def say(self, text: str) -> None:
        """Take a sentence for people."""
        ...

    def sync(self) -> None:
        """Make safe what a checkpoint relies on, before it is committed; called by the thread that commits.

        Raises:
            OSError: the disk refuses.
        """
        ...

    def close(self) -> None:
        """Flush and let go."""
        ...


class Trackers:
    """Several trackers as one; an empty list on the ranks that do not report."""

    def __init__(self, trackers: list[Tracker]) -> None:
        self._trackers = trackers

    def log(self, line: Metrics) -> None:
        """Report one step."""
        for tracker in self._trackers:
            tracker.log(line)

    def say(self, text: str) -> None:
        """Report a sentence."""
        for tracker in self._trackers:
            tracker.say(text)

    def sync(self) -> None:
        """Make safe what a checkpoint relies on.

        Raises:
            OSError: the disk refuses.
        """
        for tracker in self._trackers:
            tracker.sync()

    def close(self) -> None:
        """Close all."""
        for tracker in self._trackers:
            tracker.close()


class JsonlTracker:
    """metrics.jsonl: one JSON object a step, whole lines, no gaps.

    A start copies the lines up to its checkpoint into a new file and renames it over the old one: what was trained
    after the checkpoint is trained again, a torn last line is dropped, and a former process that still lives writes
    into a file that nobody reads.

    Args:
        path: the file.
        step: of the checkpoint that this start continues; 0 for a new run.
    """

    def __init__(self, path: Path, step: int) -> None:
        self._last_step = step
        self._file = LineFile(renewed(path, "".join(lines_up_to(path, step)).encode()))

    def log(self, line: Metrics) -> None:
        """Append a line."""
        assert line["step"] == self._last_step + 1, "metrics.jsonl must have no gaps"
        self._last_step = line["step"]
        values = {key: to_json_value(value) for key, value in line.items()}
        self._file.write(json.dumps(values))

    def say(self, text: str) -> None:
        """Nothing: this file holds numbers."""

    def sync(self) -> None:
        """Bring the lines to the disk: a checkpoint without those before it would be of no use.

        Raises:
            OSError: the disk refuses.
        """
        self._file.sync()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def lines_up_to(path: Path, step: int) -> list[str]:
    """The whole lines of steps 1 to `step`.

    Raises:
        RunFolderError: the file lacks some of them.
    """
    kept = _whole_lines(path)[:step]
    if len(kept) != step or (kept and _step_in(kept[-1]) != step):
        raise RunFolderError(
            f"{path} has lines for {len(kept)} of the {step} steps before the checkpoint. Restore the file, or start "
            "another run from the weights with run.name=NAME checkpoint.init_from=CHECKPOINT."
        )
    return kept


def last_step(path: Path) -> int:
    """The last step that has a line, and as many lines before it as it should; 0 if none has."""
    lines = _whole_lines(path)
    while lines and _step_in(lines[-1]) != len(lines):
        lines.pop()
    return len(lines)


def _whole_lines(path: Path) -> list[str]:
    """All lines but a torn last one; what is no text, after a crash of the machine, is kept as such."""
    if not path.is_file():
        return []
    lines = path.read_text(errors="replace").split("\n")[:-1]
    return [f"{line}\n" for line in lines]


def _step_in(line: str) -> int | None:
    """The step of a line; None if it is none of ours."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return None
