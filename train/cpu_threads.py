"""How CPU threads wait for each other: spinning on an idle machine, asleep while other processes want the processors.

A spinning thread resumes at once, which saves a quarter of a step on an idle machine. On a busy one it takes the
processor from the thread that it waits for: with two threads beside four busy processes, steps became ten times slower.
GNU's OpenMP, which PyTorch's CPU builds include, reads its spin count only once, but spins only briefly while a process
has more OpenMP threads than processors that it may use (see GOMP_SPINCOUNT in its manual). So this file keeps a few
idle OpenMP threads while the machine is busy.
"""

import contextlib
import ctypes
import os
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

# Variables by which users choose: OpenMP's own, and those of GNU's and Intel's implementations.
_CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_POLL_SECONDS = 0.1
# Even on an idle machine some thread wakes up now and then. So a machine counts as busy after it was busy in each of
# several polls, and as idle again after a longer time.
_POLLS_TO_SLEEP, _POLLS_TO_SPIN = 5, 20


@contextlib.contextmanager
def waiting_as_the_machine_allows(device: torch.device) -> Iterator[None]:
    """Let this process's CPU threads wait asleep whenever the machine is busy, unless the user chose how they wait.

    Does nothing with one thread, on a GPU, or without GNU's OpenMP.
    """
    libraries = _openmp_libraries()
    is_chosen = any(name in os.environ for name in _CHOICES)
    if device.type != "cpu" or is_chosen or torch.get_num_threads() == 1 or not libraries:
        yield
        return
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(libraries, ended), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


class Load:
    """Judges whether a machine is busy, by the threads that want one of its processors."""

    def __init__(self, num_cores: int) -> None:
        self._num_cores = num_cores
        self._polls: deque[bool] = deque(maxlen=_POLLS_TO_SPIN)
        self.is_busy = False

    def observe(self, num_runnable: int) -> None:
        """Record a poll: how many threads want a processor, including the one that polls."""
        self._polls.append(num_runnable - 1 > self._num_cores)
        if all(list(self._polls)[-_POLLS_TO_SLEEP:]):
            self.is_busy = len(self._polls) >= _POLLS_TO_SLEEP
        elif not any(self._polls):
            self.is_busy = False


def _watch(libraries: list[ctypes.CDLL], ended: threading.Event) -> None:
    load = Load(os.cpu_count() or 1)
    idle: threading.Event | None = None
    while not ended.wait(_POLL_SECONDS) and (runnable := num_runnable()) is not None:
        load.observe(runnable)
        if load.is_busy and idle is None:
            idle = _hold_idle_threads(libraries)
        elif not load.is_busy and idle is not None:
            idle.set()
            idle = None
    if idle is not None:
        idle.set()


def num_runnable() -> int | None:
    """Threads of this machine that want a processor; None where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
    return None


def _hold_idle_threads(libraries: list[ctypes.CDLL]) -> threading.Event:
    """Create more OpenMP threads than processors; they sleep until the event is set, and then end."""
    released = threading.Event()
    count = len(os.sched_getaffinity(0)) + 1

    def hold() -> None:
        # OpenMP keeps the threads of a parallel region as long as the thread that opened it runs.
        for library in libraries:
            library.GOMP_parallel(_nothing_to_do(library), None, count, 0)
        released.wait()

    threading.Thread(target=hold, daemon=True).start()
    return released


def _nothing_to_do(library: ctypes.CDLL) -> Any:
    """A function that a parallel region can run and that does nothing."""
    return ctypes.cast(library.omp_get_thread_num, ctypes.c_void_p)


def _openmp_libraries() -> list[ctypes.CDLL]:
    """GNU's OpenMP as this process has loaded it: once, or once for each package that brings its own."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/maps").read_text().splitlines()
        paths = {line.split(maxsplit=5)[5] for line in lines if "/libgomp" in line}
        libraries = [ctypes.CDLL(path) for path in sorted(paths)]
        for library in libraries:
            library.GOMP_parallel.argtypes = [
                *(ctypes.c_void_p, ctypes.c_void_p),
                *(ctypes.c_uint, ctypes.c_uint),
            ]
        return libraries
    return []
