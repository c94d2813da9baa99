"""The page of runs that are still training: read again when their files have changed, one reading at a time.

Everything is only read. What is half written is left out, as for a page in a file.
"""

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import RecordError, UserError
from configs.run_paths import RunPaths
from configs.run_state import shown_state
from train.report.inlined import policy, scripts, style
from train.report.page import page_data, page_of
from train.report.read import read_run

SHORTEST_PAUSE = 2.0
"""Seconds between two readings, at least. What is asked for between them gets the outcome of the former one."""
_IDLE_FACTOR = 9
"""A reading of s seconds is followed by no other for this many times s: a large run must not keep a core busy."""


@dataclass(frozen=True)
class Snapshot:
    """The runs as they were at one time."""

    tag: str
    """Changes with every reading: the page's `written`, as JSON has it."""
    page: bytes
    """The page as HTML."""
    data: bytes
    """The data inside of it, as JSON."""
    policy: str
    """The Content-Security-Policy of the page."""


class LiveReport:
    """Reads runs, and keeps what it has read until their files change.

    Args:
        folders: run folders.
        report: told about files that cannot be read, once for each message.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        report: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folders = [Path(folder) for folder in folders]
        self._report, self._clock = report, clock
        self._told = set[str]()
        self._reading = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._stamp = ""
        self._failure: UserError | OSError | None = None
        self._not_before = -1.0

    def snapshot(self) -> Snapshot:
        """The runs as they are now, or as they were a little while ago.

        While one thread reads, others get what was read before it; the first reading is waited for.

        Raises:
            UserError: a run cannot be read now.
            OSError: the file system failed.
        """
        known = self._snapshot
        if not self._reading.acquire(blocking=known is None):
            assert known is not None, "the lock was waited for"
            return known
        try:
            return self._renewed()
        finally:
            self._reading.release()

    def _renewed(self) -> Snapshot:
        known = self._snapshot
        if self._clock() < self._not_before:
            if self._failure is not None:
                raise self._failure.with_traceback(None)
            if known is not None:
                return known
        stamp = self._stamp_of_files()
        if known is not None and stamp == self._stamp:
            return known
        began = self._clock()
        self._failure = None
        try:
            runs = [read_run(folder, self._tell) for folder in self._folders]
            found = _snapshot(page_data(runs, is_live=True))
            self._snapshot, self._stamp = found, stamp
        except (UserError, OSError) as error:
            self._failure, self._stamp = error, ""
            raise
        finally:
            took = self._clock() - began
            self._not_before = self._clock() + max(SHORTEST_PAUSE, _IDLE_FACTOR * took)
        return found

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._report(text)

    def _stamp_of_files(self) -> str:
        """Changes when a file does that the page shows, or when the process ends that trains."""
        lines = [line for folder in self._folders for line in _stamps(folder)]
        return hashlib.sha256(repr(lines).encode()).hexdigest()


def _snapshot(data: dict[str, Any]) -> Snapshot:
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return Snapshot(
        tag=json.dumps(data["written"]),
        page=page_of(data).encode(),
        data=text.encode(),
        policy=policy(scripts(), style(), is_live=True),
    )


def _stamps(folder: Path) -> Iterator[tuple[str, int, int] | str]:
    paths = RunPaths(folder)
    for path in (*paths.files, paths.generations, paths.rolled_back):
        with contextlib.suppress(OSError):
            found = path.stat()
            yield path.name, found.st_size, found.st_mtime_ns
    with contextlib.suppress(OSError, RecordError):
        yield shown_state(folder)
