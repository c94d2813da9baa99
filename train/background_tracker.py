"""A tracker that cannot stop or delay training, whatever becomes of it: a daemon thread does all that it is asked to.

Training puts each call into a bounded queue and goes on. When the queue is full, calls are left out and counted: the local
files (metrics.jsonl and its like) have everything. A tracker that fails is done for this attempt. One that does not end
in time is left behind. Each of these is said once, by the thread that trains: the console has no other writers.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from train.metrics import Metrics
from train.trackers import Tracker

CAPACITY = 10_000
"""Calls that wait, at most: some ten MiB of metrics."""
CLOSE_SECONDS = 10.0
"""How long the end of a run waits for a tracker."""

Say = Callable[[str], None]


class BackgroundTracker(Tracker):
    """Hands every call to a thread of its own.

    Args:
        name: of the tracker, for messages.
        make: makes the tracker, in the thread; gets what takes sentences for people.
        log: takes these sentences, and those about failures.
        abandon: ends what the tracker has started, once it has failed or is not waited for; None: there is nothing.
        close_seconds: how long `close` waits.
        capacity: calls that wait, at most.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[Say], Tracker],
        log: Say,
        abandon: Callable[[], None] | None = None,
        close_seconds: float = CLOSE_SECONDS,
        capacity: int = CAPACITY,
    ) -> None:
        self._name, self._make, self._log = name, make, log
        self._abandon, self._close_seconds = abandon, close_seconds
        self._calls: queue.Queue[Callable[[Tracker], None] | None] = queue.Queue(capacity)
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._has_failed = threading.Event()
        self._has_ended = threading.Event()
        self._is_closed = False
        self._num_left_out = 0
        threading.Thread(target=self._work, name=f"{name} tracker", daemon=True).start()

    def log_metrics(self, line: Metrics) -> None:
        """See Tracker."""
        self._hand_over(lambda tracker: tracker.log_metrics(line))

    def log_details(self, line: dict[str, Any]) -> None:
        """See Tracker."""
        self._hand_over(lambda tracker: tracker.log_details(line))

    def log_samples(self, line: dict[str, Any]) -> None:
        """See Tracker."""
        self._hand_over(lambda tracker: tracker.log_samples(line))

    def log_checkpoint(self, folder: Path, samples_seen: int) -> None:
        """See Tracker."""
        self._hand_over(lambda tracker: tracker.log_checkpoint(folder, samples_seen))

    def alert(self, title: str, text: str) -> None:
        """See Tracker; any thread may call this."""
        self._put(lambda tracker: tracker.alert(title, text))

    def sync(self) -> None:
        """Ask for it, without waiting: no checkpoint relies on this tracker. Any thread may call this."""
        self._put(lambda tracker: tracker.sync())

    def close(self) -> None:
        """Wait until everything is done, but not for longer than `close_seconds`."""
        if self._is_closed:
            return
        self._is_closed = True
        deadline = time.monotonic() + self._close_seconds
        try:
            with contextlib.suppress(queue.Full):
                self._calls.put(None, timeout=self._close_seconds)
            self._has_ended.wait(max(deadline - time.monotonic(), 0.0))
        finally:
            has_ended = self._has_ended.is_set()
            self._tell()  # what comes of being abandoned is no news
            if self._abandon is not None and (self._has_failed.is_set() or not has_ended):
                self._abandon()
        if not has_ended:
            self._log(
                f"{self._name} has not taken everything {self._close_seconds:g} seconds after the end, and is not waited for; "
                "the run folder has all of it."
            )
        elif self._num_left_out and not self._has_failed.is_set():
            self._log(f"{self._name} lacks {self._num_left_out:,} records of this attempt.")

    def _hand_over(self, call: Callable[[Tracker], None]) -> None:
        self._tell()
        if self._put(call):
            return
        if not self._num_left_out:
            self._log(
                f"{self._name} does not keep up: what comes now is left out there. The run folder has all of it."
            )
        self._num_left_out += 1

    def _put(self, call: Callable[[Tracker], None]) -> bool:
        """Put a call into the queue, unless the tracker has failed; False: there is no room."""
        if self._has_failed.is_set() or self._is_closed:
            return True
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            return False
        return True

    def _tell(self) -> None:
        """Pass on what the thread has said."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._log(self._said.get_nowait())

    def _work(self) -> None:
        try:
            tracker = self._make(self._said.put)
            while (call := self._calls.get()) is not None:
                call(tracker)
            tracker.close()
        except (
            BaseException
        ) as error:  # whatever goes wrong in another's program must not end the run
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            self._said.put(f"{self._name} failed ({reason}); training goes on without it.")
            self._has_failed.set()
            with contextlib.suppress(queue.Empty):
                while True:  # nobody takes these any more
                    self._calls.get_nowait()
        finally:
            self._has_ended.set()
