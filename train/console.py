"""What people see of a run while it trains: a bar or lines on the terminal, and log.txt with every printed line."""

import math
import sys
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
)
from rich.text import Text

from configs.objectives import find
from configs.quoting import quoted_lists
from configs.terminal import tell, visible, wrapped
from train.full_disk import LineFile
from train.metrics import Metrics
from train.trackers import Tracker

# Share of the newest step in the loss and the speed that the bar shows: an average over about ten steps.
_NEWEST = 0.1
# Of the terminals that lines are made for; with many objectives the learning rate is left out.
_COLUMNS = 80


class ConsoleTracker(Tracker):
    """A bar or lines on the terminal, and log.txt with every printed line.

    Neither stops training: a line that cannot be printed is lost, and one that cannot be written is missing in log.txt.

    Args:
        log: file that gets the lines.
        total_samples: length of the run.
        every_steps: a line every this many steps.
        show_bar: draw a bar; otherwise print the lines.
    """

    def __init__(self, log: Path, total_samples: int, every_steps: int, show_bar: bool) -> None:
        self._file: LineFile | None = LineFile(log.open("a", encoding="utf-8"))
        self._total = total_samples
        self._every = every_steps
        self._bar: Progress | None = None
        self._show_bar = show_bar
        self._smoothed: dict[str, float] = {}

    def log_metrics(self, line: Metrics) -> None:
        """Move the bar, or print a line now and then; evaluations are always printed."""
        is_evaluated = line["valid/loss"] is not None
        is_due = line["step"] % self._every == 0 or is_evaluated
        if is_due:
            self._keep(step_text(line))
        if self._show_bar:
            self._move_bar(line)
        elif is_due:
            tell(step_text(line))

    def log(self, text: str) -> None:
        """Print a sentence and keep it."""
        text = quoted_lists(visible(text))
        self._keep(text)
        self._print(text)

    def alert(self, title: str, text: str) -> None:
        """Show the sentences."""
        self.log(text)

    def close(self) -> None:
        """Take the bar down."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _keep(self, text: str) -> None:
        if self._file is None:
            return
        try:
            self._file.write(text)
        except OSError as error:  # the numbers are in metrics.jsonl, whose failure does count
            self._file = None
            tell(f"{error.filename}: {error.strerror}. The log misses what comes now.", sys.stderr)

    def _print(self, text: str) -> None:
        if self._bar is None:
            tell(text)
        else:
            self._bar.console.print(wrapped(text), markup=False, highlight=False, soft_wrap=True)

    def _move_bar(self, line: Metrics) -> None:
        if self._bar is None:
            # It goes when it has served: what is printed last must stand last.
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=16),
                TaskProgressColumn(),
                _TimeLeft(),
                console=Console(),
                transient=True,
            )
            self._bar.add_task("", total=self._total, completed=line["samples_seen"])
        loss = self._smooth("loss", line["train/loss"])
        speed = self._smooth("speed", line["speed/tokens_per_second"])
        description = f"step {line['step']:,} loss {loss:.3f} {speed:,.0f} tokens/s"
        if line["valid/loss"] is not None:
            self._print(evaluation_text(line))
        task = self._bar.task_ids[0]
        self._bar.update(task, completed=line["samples_seen"], description=description)
        self._bar.start()  # the first time, with all of its words

    def _smooth(self, name: str, value: float | None) -> float:
        """Average exponentially; a value that is not finite is shown as it is, and left out of the average."""
        if value is None:
            return math.nan
        if not math.isfinite(value):
            return value
        previous = self._smoothed.get(name, value)
        self._smoothed[name] = previous + _NEWEST * (value - previous)
        return self._smoothed[name]


class _TimeLeft(ProgressColumn):
    """How long the rest will take; nothing until that is known."""

    def render(self, task: Task) -> Text:
        """See ProgressColumn."""
        seconds = task.time_remaining
        return Text("" if seconds is None else f"{timedelta(seconds=int(seconds))} left")


def step_text(line: Metrics) -> str:
    """One step as a line of fixed columns, for a log."""
    parts = _by_objective(line, "train", 2)
    text = (
        f"step {line['step']:6,} | samples {line['samples_seen']:10,} | loss {_short(line['train/loss'])} ({parts}) | "
        f"lr {line['optim/lr']:.2e} | gnorm {_short(line['optim/grad_norm'])} | "
        f"{line['speed/tokens_per_second']:,.0f} tokens/s"
    )
    if line["valid/loss"] is not None:
        valid = _by_objective(line, "valid", 3)
        text += f" | held-out loss {line['valid/loss']:.4f} ({valid})"
    return text


def evaluation_text(line: Metrics) -> str:
    """An evaluation as a line for a terminal of 80 columns, beside a bar that shows the rest."""
    valid = _by_objective(line, "valid", 3)
    text = (
        f"{line['samples_seen']:>9,} samples  held-out loss {_short(line['valid/loss'])} ({valid})"
    )
    rate = f"  lr {line['optim/lr']:.1e}"
    return text + rate if len(text + rate) <= _COLUMNS else text


def _by_objective(line: Metrics, kind: str, digits: int) -> str:
    prefix = f"{kind}/loss_"
    values = {
        key.removeprefix(prefix): value for key, value in line.items() if key.startswith(prefix)
    }
    return " ".join(f"{_label(name)} {v:.{digits}f}" for name, v in values.items() if v is not None)


@lru_cache
def _label(key: str) -> str:
    """The name of an objective in tables and lines."""
    return find(key).label


def _short(value: Any) -> str:
    return f"{value:.4f}" if value is not None and math.isfinite(value) else str(value)
