"""The tracker that people read: sentences and now and then a step as records of logging, and the live display."""

import contextlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from configs import derive
from configs.quoting import quoted_lists
from configs.schema import Config, ProgressBar
from configs.terminal import can_be_redrawn, help_columns, visible
from train.metrics import Metrics
from train.terminal.lines import evaluation_text, step_text
from train.terminal.records import LogFileHandler, PrintHandler, printer, say
from train.terminal.screen import Screen
from train.trackers import Tracker

_WARNING = "Warning: "


class ConsoleTracker(Tracker):
    """Lines for the terminal and log.txt, and a live display; inside a block of records.printed_lines.

    It does not stop training: a line that cannot be printed is lost, one that cannot be written is missing in log.txt, and a
    display that fails is taken down.

    Args:
        log: file that gets the lines.
        every_steps: a line every this many steps.
        screen: the live display; None: there is none.
    """

    def __init__(self, log: Path, every_steps: int, screen: Screen | None) -> None:
        self._file = LogFileHandler(log)
        self._every = every_steps
        self._screen = screen
        self._printer: PrintHandler | None = None
        if screen is not None and (found := printer()) is not None:
            self._printer = found
            found.takes = self._show

    @classmethod
    def of(cls, config: Config, log: Path) -> "ConsoleTracker":
        """The tracker of a run, as `log.progress_bar` says.

        Args:
            config: of the run.
            log: file that gets the lines.
        """
        wanted = config.log.progress_bar
        # Where an embedding program takes the records, the screen is its own.
        is_free = can_be_redrawn(sys.stdout) and printer() is not None
        screen = None
        if wanted is ProgressBar.on or (wanted is ProgressBar.auto and is_free):
            screen = Screen(
                derive.run_name(config),
                config.optim.total_samples,
                config.log.every_steps,
                sys.stdout,
                is_forced=wanted is ProgressBar.on,
            )
        return cls(log, config.log.every_steps, screen)

    def log_metrics(self, line: Metrics) -> None:
        """Show the step, and log it as a line now and then; evaluations are always logged."""
        if line["step"] % self._every == 0 or line["valid/loss"] is not None:
            say(step_text(line), metrics=line)
        self._draw(lambda screen: screen.take(line))

    def log(self, text: str) -> None:
        """Log a sentence."""
        level = logging.WARNING if text.startswith(_WARNING) else logging.INFO
        say(quoted_lists(visible(text)), level)

    def alert(self, title: str, text: str) -> None:
        """Log the sentences as a warning."""
        say(quoted_lists(visible(text)), logging.WARNING)

    def log_checkpoint(self, folder: Path, samples_seen: int) -> None:
        """Show which checkpoint is the newest."""
        self._draw(lambda screen: screen.take_checkpoint(folder.name))

    def say_at_once(self, text: str) -> bool:
        """Print a sentence from a signal handler; False if there is no display, whose place must be known to print."""
        if self._screen is None:
            return False
        return self._screen.print_at_once(text)

    def take_down(self) -> None:
        """Take the live display down; lines are logged as before."""
        self._draw(Screen.close)
        if self._printer is not None:
            self._printer.takes = None
        self._screen = None

    def close(self) -> None:
        """Take the display down, and close log.txt."""
        self.take_down()
        self._file.close()

    def _show(self, record: logging.LogRecord) -> bool:
        """Print a record above the display, which shows steps by itself; False if there is no display any more."""
        metrics = getattr(record, "metrics", None)
        text, is_warning = record.getMessage(), record.levelno >= logging.WARNING
        if metrics is None:
            return self._draw(lambda screen: screen.print(text, is_warning))
        if metrics["valid/loss"] is not None:
            shown = evaluation_text(metrics, help_columns())
            return self._draw(lambda screen: screen.print(shown, is_event=False))
        return self._screen is not None

    def _draw(self, act: Callable[[Screen], None]) -> bool:
        """Do something with the display, whose failure is no reason to end a run.

        Returns:
            False if there is no display, or no longer.
        """
        screen = self._screen
        if screen is None:
            return False
        try:
            act(screen)
        except Exception as error:  # of rich, or of what lays the figures out
            self._screen = None
            if self._printer is not None:
                self._printer.takes = None
            with contextlib.suppress(Exception):
                screen.close()
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            self.log(
                f"{_WARNING}the live display has failed ({reason}). Lines are printed in its place."
            )
            return False
        return True
