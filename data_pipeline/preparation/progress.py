"""How far a preparation has come: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
)

from configs.terminal import tell, visible, wrapped

_SECONDS_BETWEEN_LINES = 10.0
_LARGE_BYTES = 10_000_000


class Meter(Protocol):
    """Shows how much has been read."""

    def start(self, total_bytes: int | None) -> None:
        """Begin; `total_bytes` is None if it is not known."""
        ...

    def skip(self, num_bytes: int) -> None:
        """Count bytes that an earlier run has read."""
        ...

    def advance(self, num_bytes: int) -> None:
        """Count bytes of the input."""
        ...

    def note(self, text: str) -> None:
        """Print a message on a line of its own."""
        ...

    def stop(self) -> None:
        """End, finished or not."""
        ...


class Silent:
    """Shows nothing."""

    def start(self, total_bytes: int | None) -> None:
        """See Meter."""

    def skip(self, num_bytes: int) -> None:
        """See Meter."""

    def advance(self, num_bytes: int) -> None:
        """See Meter."""

    def note(self, text: str) -> None:
        """See Meter."""

    def stop(self) -> None:
        """See Meter."""


class _Count:
    """Bytes read and the time of the start, for both kinds of display."""

    def __init__(self) -> None:
        self._total: int | None = None
        self._earlier = self._read = 0
        self._began = time.monotonic()

    def start(self, total_bytes: int | None) -> None:
        """See Meter."""
        self._total, self._earlier, self._read = total_bytes, 0, 0
        self._began = time.monotonic()

    def skip(self, num_bytes: int) -> None:
        """See Meter."""
        self._earlier += num_bytes

    def advance(self, num_bytes: int) -> None:
        """See Meter."""
        self._read += num_bytes

    def text(self) -> str:
        """How far it is."""
        return line(self._total, self._earlier, self._read, time.monotonic() - self._began)


class Bar(_Count):
    """A progress bar next to the lines of `Lines`; it disappears when the work is done or given up."""

    def __init__(self) -> None:
        super().__init__()
        columns = (BarColumn(bar_width=16), TextColumn("{task.description}", markup=False))
        self._bar = Progress(*columns, console=Console(), transient=True)
        self._task: TaskID | None = None

    def start(self, total_bytes: int | None) -> None:
        """See Meter."""
        super().start(total_bytes)
        self._task = self._bar.add_task(self.text(), total=total_bytes)
        self._bar.start()

    def skip(self, num_bytes: int) -> None:
        """See Meter."""
        super().skip(num_bytes)
        self._move()

    def advance(self, num_bytes: int) -> None:
        """See Meter."""
        super().advance(num_bytes)
        self._move()

    def _move(self) -> None:
        if self._task is not None:
            done = self._earlier + self._read
            self._bar.update(self._task, completed=done, description=self.text())

    def note(self, text: str) -> None:
        """See Meter."""
        # soft_wrap: the lines are ours, broken between words.
        console = self._bar.console
        console.print(wrapped(visible(text)), markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """See Meter."""
        self._bar.stop()


class Lines(_Count):
    """A line every ten seconds: for a log file."""

    def start(self, total_bytes: int | None) -> None:
        """See Meter."""
        super().start(total_bytes)
        self._spoke = self._began

    def advance(self, num_bytes: int) -> None:
        """See Meter."""
        super().advance(num_bytes)
        now = time.monotonic()
        if now - self._spoke >= _SECONDS_BETWEEN_LINES:
            self._spoke = now
            tell(self.text())

    def note(self, text: str) -> None:
        """See Meter."""
        tell(text)

    def stop(self) -> None:
        """See Meter."""


def line(total_bytes: int | None, earlier_bytes: int, read_bytes: int, seconds: float) -> str:
    """How far it is, how fast, and how long it will take.

    Args:
        total_bytes: of the whole input; None if not known.
        earlier_bytes: read by an earlier run.
        read_bytes: since then, in `seconds`.
        seconds: since the start.
    """
    read = earlier_bytes + read_bytes
    speed = read_bytes / seconds if seconds > 0 else 0.0
    # Small corpora are shown in tenths of a MB.
    digits = 0 if max(read, total_bytes or 0) >= _LARGE_BYTES else 1
    text = f"prepared {read / 1e6:,.{digits}f}"
    if total_bytes:
        text += f" of {total_bytes / 1e6:,.{digits}f} MB ({read / total_bytes:.0%})"
    else:
        text += " MB"
    if not speed:  # too early for an estimate
        return text
    text += f", {speed / 1e6:,.1f} MB/s"
    if total_bytes:
        minutes, left = divmod(round(max(total_bytes - read, 0) / speed), 60)
        text += f", {minutes:,}:{left:02d} left"
    return text


def console_meter() -> Meter:
    """A bar where standard output is a terminal, lines elsewhere."""
    return Bar() if sys.stdout.isatty() else Lines()
