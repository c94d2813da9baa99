"""A terminal that takes nothing until somebody reads, as after Ctrl-S or behind a connection that stands still."""

import contextlib
import os
import select
import threading


class StalledTerminal:
    """A terminal without room for one byte more."""

    def __init__(self) -> None:
        self._own, self.descriptor = os.openpty()
        os.set_blocking(self.descriptor, False)
        self._filled = 0
        # What is written moves on to the other end a moment later, and leaves room.
        while select.select([], [self.descriptor], [], 0.5)[1]:
            with contextlib.suppress(BlockingIOError):
                while True:
                    self._filled += os.write(self.descriptor, b"x" * 64)
        os.set_blocking(self.descriptor, True)
        self._read = bytearray()
        self._has_grown = threading.Condition()

    def go_on(self) -> None:
        """Read from now on."""
        threading.Thread(target=self._take, daemon=True).start()

    def read_until(self, words: str) -> str:
        """What was written since the terminal stalled, once these words are there."""
        with self._has_grown:
            assert self._has_grown.wait_for(lambda: words in self._text, 60), self._text
            return self._text

    @property
    def _text(self) -> str:
        return self._read[self._filled :].decode("utf-8", "ignore").replace("\r\n", "\n")

    def _take(self) -> None:
        with contextlib.suppress(OSError):
            while content := os.read(self._own, 65536):
                with self._has_grown:
                    self._read += content
                    self._has_grown.notify_all()
