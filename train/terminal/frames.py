"""A terminal as a stream that neither delays nor ends the program: a thread writes, and what a stalled one does not take waits.

A terminal takes nothing after Ctrl-S, or while its connection stands still. Asking it first is not enough, for it may have
room for a part of a frame only, and its descriptor cannot be made non-blocking, since other programs share that setting.
"""

import contextlib
import os
import queue
import threading
from typing import Any, TextIO

# What a terminal that takes its bytes needs at most; one that has just stopped costs this once.
_PATIENCE_SECONDS = 0.5
# What waits for a stalled terminal at most; log.txt has the sentences.
_LARGEST_WAIT_BYTES = 2**23


class Frames:
    """A stream whose texts reach the terminal whole: one write each, which is shown at its end. Nothing is raised.

    Args:
        stream: where they go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream: Any = stream
        self.before = ""
        """Precedes the next text."""
        # Without locks of its own: a signal handler may write while it interrupts a write.
        self._texts: queue.SimpleQueue[tuple[int, bytes, threading.Lock]] = queue.SimpleQueue()
        self._newest = threading.Lock()  # held until the newest text is written
        self._handed_over = self._written = 0
        self._thread_of: int | None = None

    @property
    def is_behind(self) -> bool:
        """True while the terminal has not taken all that was written to it."""
        return self._newest.locked()

    def write(self, text: str) -> int:
        """Write a text; terminals that know synchronized output (private mode 2026) show nothing of it before its end.

        A terminal that takes nothing is waited for a moment, once; then the texts wait, and those that find no room are lost.
        """
        text, self.before = self.before + text, ""
        if "\n" in text:
            text = f"\x1b[?2026h{text}\x1b[?2026l"
        with contextlib.suppress(OSError, ValueError):
            try:
                descriptor = self._stream.fileno()
            except (OSError, ValueError, AttributeError):  # of a test or a notebook
                self._stream.write(text)
                return len(text)
            content = text.encode(self._stream.encoding or "utf-8", "backslashreplace")
            self._hand_over(descriptor, content)
        return len(text)

    def flush(self) -> None:
        """Nothing: `write` has done it."""

    def settle(self, seconds: float) -> bool:
        """Wait until everything is written, or for so long; returns whether it is."""
        newest = self._newest
        if not newest.acquire(timeout=seconds):
            return False
        newest.release()
        return True

    def is_around(self, stream: TextIO) -> bool:
        """True if the texts go to this stream."""
        return self._stream is stream

    def _hand_over(self, descriptor: int, content: bytes) -> None:
        was_behind = self.is_behind
        if was_behind and self._handed_over - self._written + len(content) > _LARGEST_WAIT_BYTES:
            return
        self._handed_over += len(content)
        self._newest = threading.Lock()
        self._newest.acquire()
        self._texts.put((descriptor, content, self._newest))
        if self._thread_of != os.getpid():  # a forked process has no thread
            self._thread_of = os.getpid()
            threading.Thread(target=self._work, name="terminal", daemon=True).start()
        if not was_behind:
            self.settle(_PATIENCE_SECONDS)

    def _work(self) -> None:
        while True:
            descriptor, content, is_waiting = self._texts.get()
            with contextlib.suppress(OSError, ValueError):
                self._stream.flush()
                # Past Python's buffers, in one write.
                rest = content
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            self._written += len(content)
            is_waiting.release()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
