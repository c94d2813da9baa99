"""Writing the small files of a run on a full disk: lines wait in memory, a message is printed, and training continues."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from configs.terminal import tell
from train.failures import is_full


class LineFile:
    """Appends whole lines; if the disk is full, they are kept in memory until a later line can be written.

    Args:
        file: open to write at its end.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._waiting = b""
        self._has_said = False

    def write(self, line: str) -> None:
        """Append a line.

        Raises:
            OSError: writing failed for another reason than a full disk.
        """
        with self._lock:
            self._waiting += line.encode() + b"\n"
            try:
                self._write_waiting()
            except OSError as error:
                if not is_full(error):
                    raise
                if not self._has_said:
                    _log(
                        Path(self._file.name), error, "Its lines are kept in memory until there is."
                    )
                self._has_said = True
                return
            self._has_said = False

    def sync(self) -> None:
        """Write all lines to the disk, so that they survive a crash of the machine; any thread may call this.

        Raises:
            OSError: writing failed, or the disk is full.
        """
        with self._lock:
            self._write_waiting()
        with self._named():
            os.fsync(self._file.fileno())  # without the lock: training need not wait for it

    def _write_waiting(self) -> None:
        with self._named():
            while self._waiting:
                self._waiting = self._waiting[os.write(self._file.fileno(), self._waiting) :]

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Errors name the file, which the kernel does not."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._file.name) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextlib.contextmanager
def said_if_full(path: Path) -> Iterator[None]:
    """Write a file that the next version replaces soon: without room for it, the old one stays and a line says so."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        _log(path, error, "The previous version stays.")


def _log(path: Path, error: OSError, consequence: str) -> None:
    tell(f"{path} cannot be written: {error.strerror}. {consequence}", sys.stderr)
