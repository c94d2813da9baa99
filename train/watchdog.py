"""Notices what does not end - a rank that hangs, a lost peer, a dead disk - and ends the process for the launcher.

A thread in every rank watches the clock. When a rank hangs all of them do, for they wait for each other: each writes
the stacks of its threads to runs/NAME/stacks/rankNNNNN.txt, gives the others a few seconds to do the same, and exits
with 3. Nobody is asked, so it works whichever rank is the dead one. Should Python itself be stuck, so that no thread
can run, the kernel's alarm ends the process.
"""

import contextlib
import errno
import faulthandler
import os
import signal
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from configs.errors import EXIT_PEER_FAILED

_POLL_SECONDS = 0.2
# Ranks begin a step together, and so notice its delay together: so long each waits for the others' stacks.
_GRACE_SECONDS = 10.0
# A dead disk must not keep the process from ending.
_DISK_SECONDS = 10.0
# Nor must a terminal that takes nothing (Ctrl-S, a connection that stands still).
_TERMINAL_SECONDS = 2.0
# The kernel's alarm ends the process so much later than the thread should have acted.
_ALARM_FACTOR, _ALARM_SECONDS = 1.25, 60.0


class StepLimits:
    """How long a step, and anything rarer, may take.

    Unless the limit is given it follows the recent steps, with a wide margin: a slow step is not a hang.

    Args:
        seconds: of a step; None: follow the recent steps.
    """

    FLOOR_SECONDS = 300.0
    TIMES_RECENT = 20
    RECENT_STEPS = 50
    RARE_FLOOR_SECONDS = 1800.0
    TIMES_RARE = 10

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._recent: deque[float] = deque(maxlen=self.RECENT_STEPS)

    def observe(self, step_seconds: float) -> None:
        """Record the duration of a step."""
        self._recent.append(step_seconds)

    @property
    def step_seconds(self) -> float:
        """Limit of a step."""
        if self._seconds is not None:
            return self._seconds
        if not self._recent:  # the first one compiles kernels and opens connections
            return self.rare_seconds
        return max(self.FLOOR_SECONDS, self.TIMES_RECENT * max(self._recent))

    @property
    def rare_seconds(self) -> float:
        """Limit of the first step, an evaluation and a save."""
        if self._seconds is not None:
            return self.TIMES_RARE * self._seconds
        slowest = max(self._recent, default=0.0)
        return max(self.RARE_FLOOR_SECONDS, self.TIMES_RARE * self.TIMES_RECENT * slowest)


class Watchdog:
    """Watches this rank.

    Args:
        stacks: folder for the stacks of all ranks.
        rank: of this process.
        is_alone: it is the only rank. Time in which it was suspended (Ctrl-Z) then does not count.
        report: called with the reason before the process ends; may be slow.
    """

    def __init__(
        self, stacks: Path, rank: int, is_alone: bool, report: Callable[[str], None]
    ) -> None:
        self._file = stacks / f"rank{rank:05d}.txt"
        self._rank = rank
        self._is_alone = is_alone
        self._report = report
        self._has_written = False
        self._watched: tuple[str, float, float] | None = None
        self._has_closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="watchdog", daemon=True)
        self._thread.start()

    def watch(self, doing: str, limit_seconds: float) -> None:
        """From now on the process does something else; call it from the main thread.

        Args:
            doing: for the message.
            limit_seconds: after which it counts as hanging.
        """
        self._watched = (doing, limit_seconds, time.monotonic() + limit_seconds)
        if not self._is_alone:
            alarm = _ALARM_FACTOR * limit_seconds + _ALARM_SECONDS
            signal.setitimer(signal.ITIMER_REAL, alarm)

    def close(self) -> None:
        """Stop watching.

        A rank that was itself the one that hung, and goes on now, finds its peers gone before its thread acts. Stacks that
        the thread has written stay: they show where the rank waited, these only where it learnt that its peers are gone.
        """
        watched, self._watched = self._watched, None
        self._has_closed.set()
        is_late = watched is not None and not self._is_alone and time.monotonic() > watched[2]
        if watched is not None and is_late and not self._has_written:
            self._write(self._reason(*watched[:2]))
        if not self._is_alone:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _work(self) -> None:
        before = time.monotonic()
        paused = 0.0
        seen = self._watched
        while not self._has_closed.wait(_POLL_SECONDS):
            now = time.monotonic()
            watched = self._watched
            if watched is not seen:
                seen, paused = watched, 0.0
            if self._is_alone:
                paused += max(now - before - 10 * _POLL_SECONDS, 0.0)
            before = now
            if watched is not None and now > watched[2] + paused:
                self._end(self._reason(*watched[:2]))

    def _end(self, reason: str) -> None:
        writing = threading.Thread(target=self._write, args=(reason,), daemon=True)
        writing.start()
        writing.join(_DISK_SECONDS)
        is_safe = self._has_written and not writing.is_alive()
        where = f"in {self._file}" if is_safe else "below"
        last = f"{reason}; the stacks of its threads are {where}\n".encode(
            errors="backslashreplace"
        )
        telling = threading.Thread(target=_tell, args=(last, not is_safe), daemon=True)
        telling.start()
        telling.join(_TERMINAL_SECONDS)
        time.sleep(_GRACE_SECONDS)
        os._exit(EXIT_PEER_FAILED)

    def _reason(self, doing: str, limit_seconds: float) -> str:
        return f"[rank {self._rank}] {doing} did not end within {limit_seconds:.0f} seconds (stability.watchdog_seconds)"

    def _write(self, reason: str) -> None:
        with contextlib.suppress(OSError), self._opened() as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {reason}\n\n")
            file.flush()
            faulthandler.dump_traceback(file=file, all_threads=True)
            self._has_written = True
        self._report(reason)

    def _opened(self) -> TextIO:
        """The file for the stacks, new; neither a link is followed nor the other end of a pipe waited for.

        Raises:
            OSError: it cannot be made, or is not a file.
        """
        self._file.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self._file, flags, 0o644)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a file", str(self._file))
        os.ftruncate(descriptor, 0)
        return open(descriptor, "w", encoding="utf-8")


def _tell(text: bytes, has_stacks: bool) -> None:
    """Write to standard error itself: whatever stands in its place may wait for a lock of a thread that hangs."""
    if has_stacks:
        text += _stacks()
    with contextlib.suppress(OSError):
        while text:
            text = text[os.write(2, text) :]


def _stacks() -> bytes:
    """The stacks of all threads. faulthandler lets no other thread run while it writes, so it gets a file in memory."""
    with open(os.memfd_create("stacks"), "w+b") as file:
        faulthandler.dump_traceback(file=file, all_threads=True)
        file.seek(0)
        return file.read()
