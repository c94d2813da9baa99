"""The live display on a terminal: drawn in place, below everything that is printed meanwhile.

A frame is one write, which the terminal shows as a whole. The cursor stays visible, on a line of its own below the display, so
that a process that is killed leaves a usable terminal, and what another process prints does not land inside.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from configs.folding import shown_width
from configs.terminal import visible, wrapped
from train.metrics import Metrics
from train.terminal.frames import Frames
from train.terminal.layout import ASCII, UNICODE, Row, Style, plain, rows
from train.terminal.readings import Event, Readings

_COLOURS = {
    Style.figure: "",
    Style.label: "dim",
    Style.curve: "cyan",
    Style.done: "green",
    Style.rest: "dim",
    Style.warning: "bold red",
}
# Between two frames. The thread only draws where a step, an evaluation or a save takes longer than its interval.
_SECONDS = 0.5
_HEARTBEAT_SECONDS = 2.0
# How long the end waits for a terminal that takes nothing.
_CLOSE_SECONDS = 2.0


class Screen:
    """Shows the newest figures of a run, from its first step on until `close`.

    A terminal that takes nothing delays none of the methods for more than a moment. Whatever rich or the layout raises in the
    thread that draws between the steps, the next method raises.

    Args:
        name: of the run.
        total_samples: its length.
        every_steps: steps of a column of a sparkline, in the long run.
        stream: a terminal.
        is_forced: draw even if it is none.
        clock: seconds.
    """

    def __init__(
        self,
        name: str,
        total_samples: int,
        every_steps: int,
        stream: TextIO,
        is_forced: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = Frames(stream)
        self._console = Console(
            file=self._file,  # pyright: ignore[reportArgumentType]
            emoji=False,  # ":x:" in a path stays what it is
            force_terminal=True if is_forced else None,
            highlight=False,
        )
        self._clock = clock
        self._readings = Readings(self._shown(name), total_samples, every_steps, clock())
        self._live: Live | None = None
        self._lock = threading.Lock()
        self._drawn_at = -_SECONDS
        self._widths: list[int] = []
        self._width = 0
        self._waiting: list[str] = []
        self._ended = threading.Event()
        self._failure: Exception | None = None

    def take(self, line: Metrics) -> None:
        """Take the metrics of a step, and draw them unless that was done a moment ago."""
        with self._lock:
            now = self._clock()
            self._readings.take(line, now)
            if self._ended.is_set():
                return
            if self._live is None:
                self._begin()
            if now - self._drawn_at >= _SECONDS or line["valid/loss"] is not None:
                self._draw()

    def take_checkpoint(self, name: str) -> None:
        """Take the news that a checkpoint was written."""
        with self._lock:
            self._readings.checkpoint = (self._shown(name), self._clock())

    def print(self, text: str, is_warning: bool = False, is_event: bool = True) -> None:
        """Print a sentence above the display.

        Args:
            text: may hold several lines.
            is_warning: it is marked as one in the display.
            is_event: the display shows it as what happened last.
        """
        with self._lock:
            if is_event and self._readings.line:
                first = self._shown(text.strip().partition("\n")[0])
                self._readings.event = Event(first, is_warning, self._clock())
            self._print(text)
            self._print_waiting()

    def print_at_once(self, text: str) -> bool:
        """Print a sentence from a signal handler, which may have interrupted a drawing; it then follows that.

        Returns:
            False if nothing is drawn, and the sentence was not printed.
        """
        if self._live is None or self._failure is not None:
            return False
        self._waiting.append(text)
        if self._lock.acquire(blocking=False):
            try:
                self._print_waiting()
            except Exception as error:  # not in the midst of what the handler has interrupted
                self._failure = error
                return False
            finally:
                self._lock.release()
        return True

    def close(self) -> None:
        """Take the display down. What is printed from now on is printed as ever."""
        self._ended.set()
        with self._lock:
            live, self._live = self._live, None
            if live is not None:
                self._make_room()
                live.stop()
            self._print_waiting()
        self._file.settle(_CLOSE_SECONDS)

    def _begin(self) -> None:
        live = self._live = Live(
            get_renderable=self._frame,
            console=self._console,
            auto_refresh=False,
            transient=True,
            # What others print on the same terminal goes above; standard error may be a file.
            redirect_stdout=self._file.is_around(sys.stdout),
            redirect_stderr=self._file.is_around(sys.stdout) and _is_terminal(2),
            vertical_overflow="crop",
        )
        with self._console:
            live.start()
            self._console.show_cursor(True)
        threading.Thread(target=self._beat, name="display", daemon=True).start()

    def _beat(self) -> None:
        while not self._ended.wait(_HEARTBEAT_SECONDS):
            if self._clock() - self._drawn_at < _HEARTBEAT_SECONDS:
                continue
            if self._lock.acquire(blocking=False):
                try:
                    self._draw()
                except Exception as error:  # raised by the next call
                    self._failure = error
                    return
                finally:
                    self._lock.release()

    def _draw(self) -> None:
        if self._failure is not None:
            raise self._failure
        # A frame that nobody can see is left out before rich takes note of its height.
        if self._live is None or self._file.is_behind:
            return
        self._make_room()
        self._live.refresh()
        self._drawn_at = self._clock()
        self._print_waiting()

    def _make_room(self) -> None:
        """Erase what a terminal that has become narrower has folded: more lines than were drawn."""
        width = self._console.width
        if width < self._width:
            folded = sum(-(-each // width) - 1 for each in self._widths if each > width)
            self._file.before = "\r\x1b[2K" + "\x1b[1A\x1b[2K" * folded
        self._width = width

    def _frame(self) -> "_Frame":
        if self._ended.is_set():
            return _Frame([])
        size, encoding = self._console.size, self._console.encoding
        glyphs = UNICODE if encoding.replace("-", "") == "utf8" else ASCII
        shown = rows(self._readings, size.width, size.height, glyphs, self._clock())
        self._widths = [shown_width(plain(row).rstrip()) for row in shown]
        return _Frame(shown)

    def _print(self, text: str) -> None:
        self._make_room()
        self._console.print(wrapped(text), markup=False, highlight=False, soft_wrap=True)

    def _print_waiting(self) -> None:
        while self._waiting:
            self._print(self._waiting.pop(0))

    def _shown(self, text: str) -> str:
        """One line in characters that the terminal has."""
        encoding = self._console.encoding
        return visible(text, keep="").encode(encoding, "backslashreplace").decode(encoding)


class _Frame:
    """Rows as rich draws them, and an empty line for the cursor."""

    def __init__(self, shown: list[Row]) -> None:
        self._shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for row in self._shown:
            text = Text(no_wrap=True, overflow="crop")
            for words, style in row:
                text.append(words, _COLOURS[style])
            yield text
        yield Segment("")


def _is_terminal(descriptor: int) -> bool:
    with contextlib.suppress(OSError):
        return os.isatty(descriptor)
    return False
