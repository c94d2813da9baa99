"""Where a run reports to: metrics.jsonl, the console with log.txt, and wandb, behind one protocol."""

import json
import math
import sys
from pathlib import Path
from typing import Any, Protocol

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from configs.errors import RunFolderError
from train.full_disk import LineFile
from train.metrics import OBJECTIVE_NAMES, Metrics, to_json_value
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


class ConsoleTracker:
    """A bar or lines on the terminal, and log.txt with every printed line.

    Args:
        log: file that gets the lines.
        total_samples: length of the run.
        every_steps: a line every this many steps.
        show_bar: draw a bar; otherwise print the lines.
    """

    def __init__(self, log: Path, total_samples: int, every_steps: int, show_bar: bool) -> None:
        self._file = LineFile(log.open("a"))
        self._total = total_samples
        self._every = every_steps
        self._bar: Progress | None = None
        self._show_bar = show_bar

    def log(self, line: Metrics) -> None:
        """Move the bar, or print a line now and then; evaluations are always printed."""
        is_due = line["step"] % self._every == 0 or line["valid/loss"] is not None
        text = step_text(line)
        if is_due:
            self._file.write(text)
        if self._show_bar:
            self._move_bar(line)
        elif is_due:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def say(self, text: str) -> None:
        """Print a sentence and keep it."""
        self._file.write(text)
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def sync(self) -> None:
        """Nothing: no checkpoint relies on what people read."""

    def close(self) -> None:
        """Take the bar down."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _move_bar(self, line: Metrics) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TaskProgressColumn(),
                TimeRemainingColumn(),
            )
            self._bar.start()
            self._bar.add_task("", total=self._total, completed=line["samples_seen"])
        description = (
            f"loss {line['train/loss']:.3f}  {line['speed/tokens_per_second']:,.0f} tokens/s"
        )
        if line["valid/loss"] is not None:
            self._bar.console.print(step_text(line), markup=False, highlight=False, soft_wrap=True)
        task = self._bar.task_ids[0]
        self._bar.update(task, completed=line["samples_seen"], description=description)


def step_text(line: Metrics) -> str:
    """One step as a line of fixed columns."""
    parts = " ".join(
        f"{name} {line[f'train/loss_{name}']:.2f}"
        for name in OBJECTIVE_NAMES
        if line[f"train/loss_{name}"] is not None
    )
    text = (
        f"step {line['step']:6,} | samples {line['samples_seen']:10,} | loss {_short(line['train/loss'])} ({parts}) | "
        f"lr {line['optim/lr']:.2e} | gnorm {_short(line['optim/grad_norm'])} | "
        f"{line['speed/tokens_per_second']:,.0f} tokens/s"
    )
    if line["valid/loss"] is not None:
        valid = " ".join(
            f"{name} {line[f'valid/loss_{name}']:.3f}"
            for name in OBJECTIVE_NAMES
            if line[f"valid/loss_{name}"] is not None
        )
        text += f" | held-out loss {line['valid/loss']:.4f} ({valid})"
    return text


def _short(value: Any) -> str:
    return f"{value:.4f}" if value is not None and math.isfinite(value) else str(value)
