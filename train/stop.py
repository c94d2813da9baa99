"""Requests to stop: a signal, Ctrl-C, or the file runs/NAME/stop. The loop asks after every step.

All ranks agree on the answer (train/loop.py), so one signalled rank is enough. The first Ctrl-C saves and stops, the
second ends the process at once.
"""

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from configs.errors import EXIT_INTERRUPTED

_SAVING = "Saving after this step; Ctrl-C again to stop at once."


class StopSignal:
    """Records a request to stop.

    Args:
        stop_file: its existence is a request.
        say: prints a sentence from a signal handler where something is drawn on the terminal; false: nothing is, and
            the sentence was not printed.
    """

    def __init__(self, stop_file: Path, say: Callable[[str], bool] = lambda _: False) -> None:
        self._stop_file = stop_file
        self._say = say
        self._reason: str | None = None
        self._previous: dict[int, Any] = {}

    def install(self) -> "StopSignal":
        """Catch SIGTERM, SIGUSR1 and SIGINT from now on."""
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def restore(self) -> None:
        """Restore the previous signal handlers."""
        while self._previous:
            signal.signal(*self._previous.popitem())

    @property
    def reason(self) -> str | None:
        """Who asked; None if nobody did."""
        if self._reason is None and self._stop_file.exists():
            self._reason = f"the file {self._stop_file}"
        return self._reason

    def ask(self, reason: str) -> None:
        """Request a stop from within the program."""
        self._reason = self._reason or reason

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._reason is not None:
                os._exit(EXIT_INTERRUPTED)
            if not self._say(_SAVING):
                # Not by way of Python's buffers: the signal may have come while these were written to.
                with contextlib.suppress(OSError):
                    os.write(2, f"\n{_SAVING}\n".encode())
        self._reason = signal.Signals(number).name
