"""The sentences of a run as records of Python's logging, under one logger, which an embedding program may take over.

Nothing but this logger is configured: the root logger and other libraries' loggers stay as they are.
"""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from configs.terminal import tell
from train.full_disk import LineFile

LOGGER_NAME = "glm_pretraining"
"""The logger that gets every sentence: lines at INFO, warnings and alerts at WARNING, the reason of a failure at ERROR.

The line of a step has its metrics as the attribute `metrics` of the record (train/metrics.py).
"""

_LOGGER = logging.getLogger(LOGGER_NAME)


def say(
    text: str,
    level: int = logging.INFO,
    *,
    metrics: dict[str, Any] | None = None,
    to_stderr: bool = False,
    in_log_file: bool = True,
) -> None:
    """Log a sentence.

    Args:
        text: may hold several lines; safe to show (configs.terminal.visible).
        level: of logging.
        metrics: of the step that the text is of.
        to_stderr: where it is printed, if this program prints it; otherwise standard output.
        in_log_file: also goes to the run's log.txt, once that is open.
    """
    extra = {"metrics": metrics, "to_stderr": to_stderr, "in_log_file": in_log_file}
    _LOGGER.log(level, text, extra=extra, stacklevel=2)


@contextlib.contextmanager
def printed_lines() -> Iterator[None]:
    """Print the records until the block ends, unless the logger has a handler, which then gets them instead.

    Blocks may be nested. What this program has added to the logger since a block began is removed at its end.
    """
    before = list(_LOGGER.handlers)
    level, propagate = _LOGGER.level, _LOGGER.propagate
    if not before:
        _LOGGER.addHandler(PrintHandler())
        # Handlers that a library gives the root logger would print everything a second time.
        _LOGGER.propagate = False
    if level == logging.NOTSET:
        _LOGGER.setLevel(logging.INFO)  # that of the root logger would drop all but warnings
    try:
        yield
    finally:
        for handler in list(_LOGGER.handlers):
            if handler not in before and isinstance(handler, (PrintHandler, LogFileHandler)):
                _LOGGER.removeHandler(handler)
                handler.close()
        _LOGGER.setLevel(level)
        _LOGGER.propagate = propagate


def printer() -> "PrintHandler | None":
    """The handler that prints; None where an embedding program has taken that over."""
    return next((each for each in _LOGGER.handlers if isinstance(each, PrintHandler)), None)


class PrintHandler(logging.Handler):
    """Prints each record as a line; a live display may take them, to print above itself."""

    def __init__(self) -> None:
        super().__init__()
        self.takes: Callable[[logging.LogRecord], bool] | None = None
        """Gets the records instead of standard output and error, unless it returns False."""

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler; nothing is raised."""
        try:
            if self.takes is None or not self.takes(record):
                tell(record.getMessage(), sys.stderr if _has(record, "to_stderr") else None)
        except (
            Exception
        ):  # as other handlers do: of a record of others whose values do not fit its text
            self.handleError(record)


class LogFileHandler(logging.Handler):
    """Appends each record to log.txt. A line that cannot be written is missing there, and training goes on.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file: LineFile | None = LineFile(path.open("a", encoding="utf-8"))
        _LOGGER.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler; nothing is raised."""
        if self._file is None or not _has(record, "in_log_file"):
            return
        try:
            self._file.write(record.getMessage())
        except OSError as error:  # the numbers are in metrics.jsonl, whose failure does count
            self._file = None
            tell(f"{error.filename}: {error.strerror}. The log misses what comes now.", sys.stderr)

    def close(self) -> None:
        """Leave the logger, and close the file."""
        _LOGGER.removeHandler(self)
        if self._file is not None:
            self._file.close()
            self._file = None
        super().close()


def _has(record: logging.LogRecord, attribute: str) -> bool:
    """False for records of others, who may use the logger as well."""
    return bool(getattr(record, attribute, False))
