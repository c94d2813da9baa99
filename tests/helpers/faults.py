"""Kill -9 inside a chosen phase of a rank's attempt, and the record of where it really fell.

The victim watches itself: when it enters the phase for the n-th time a timer starts, and kills the process while it is
still inside. A phase that ends before its timer is tried again with half the delay, so that phases of milliseconds are
hit too; one that comes once in an attempt, or a fault that must not come later, kills at its end instead. The last thing the
victim does is to write down where it was.
"""

import functools
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Phases that come once in an attempt.
ONCE = ("prepare", "start", "meet", "verify", "load")
# Every phase: the rank that has it (None: all), and the functions that are it, as (module, object, attribute).
PHASES: dict[str, tuple[int | None, list[tuple[str, str | None, str]]]] = {
    "prepare": (None, [("train.prepared", None, "ensure_prepared")]),
    "start": (None, [("train.prepared", None, "open_dataset")]),
    "meet": (None, [("train.distributed", None, "_start_torch")]),
    "step": (None, [("train.engine.pipeline", "PipelineEngine", "train_step")]),
    "evaluate": (None, [("train.loop", None, "evaluate")]),
    "copy": (None, [("train.checkpoint.saver", "Saver", "save")]),
    "write": (None, [("train.checkpoint.save_attempt", "SaveAttempt", "_write")]),
    "commit": (0, [("train.checkpoint.store", "CheckpointStore", "commit")]),
    "clean": (0, [("train.checkpoint.store", "CheckpointStore", "clean")]),
    "verify": (None, [("train.choice", None, "choose_checkpoint")]),
    "load": (None, [("train.resume", None, "restore")]),
}


@dataclass(frozen=True)
class Fault:
    """Where to kill.

    Attributes:
        phase: one of PHASES.
        occurrence: of the phase in this attempt, from 1.
        delay_seconds: after its beginning.
        record: file that gets a line about the kill.
        is_now: in this occurrence, at its end if it ends before the delay; otherwise perhaps in a later one.
    """

    phase: str
    occurrence: int
    delay_seconds: float
    record: Path
    is_now: bool = False


class Phases:
    """Wraps the phases of this process.

    Args:
        rank: of this process.
        fault: None: only measure.
        durations: file that gets a line for each phase that ended; None: they are not measured.
    """

    def __init__(self, rank: int, fault: Fault | None, durations: Path | None = None) -> None:
        self._rank = rank
        self._fault = fault
        self._durations = durations
        self._entered = 0
        self._is_inside = False
        self._delay = 0.0 if fault is None else fault.delay_seconds

    def install(self) -> None:
        """Wrap the functions, which are never put back: for a process that ends afterwards."""
        import importlib

        for phase, (_, places) in PHASES.items():
            for module, owner, name in places:
                found: Any = importlib.import_module(module)
                holder = found if owner is None else getattr(found, owner)
                setattr(holder, name, self._wrapped(phase, getattr(holder, name)))

    def _wrapped(self, phase: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(*arguments: Any, **options: Any) -> Any:
            timer = self._armed(phase)
            self._is_inside = timer is not None
            started = time.perf_counter()
            try:
                return original(*arguments, **options)
            finally:
                if timer is not None:
                    assert self._fault is not None, "a timer runs only for a fault"
                    if phase in ONCE or self._fault.is_now:
                        self._kill()
                    self._is_inside = False
                    timer.cancel()
                    self._delay /= 2
                if self._durations is not None:
                    seconds = time.perf_counter() - started
                    _append(
                        self._durations, {"phase": phase, "rank": self._rank, "seconds": seconds}
                    )

        return call

    def _armed(self, phase: str) -> threading.Timer | None:
        fault = self._fault
        if fault is None or fault.phase != phase:
            return None
        self._entered += 1
        if self._entered < fault.occurrence:
            return None
        timer = threading.Timer(self._delay, self._kill)
        timer.daemon = True
        timer.start()
        return timer

    def _kill(self) -> None:
        assert self._fault is not None, "a timer runs only for a fault"
        if not self._is_inside:
            return
        _append(self._fault.record, {"phase": self._fault.phase, "rank": self._rank})
        os.kill(os.getpid(), signal.SIGKILL)


def attempt_in_phases(
    rank: int,
    world_size: int,
    overrides: tuple[str, ...],
    victim: int,
    fault: Fault | None,
    durations: Path | None,
) -> None:
    """An attempt of which one rank is killed in one phase."""
    from train.main import cli

    Phases(rank, fault if rank == victim else None, durations).install()
    with open(os.devnull, "w") as quiet:
        os.dup2(quiet.fileno(), 1)
        os.dup2(quiet.fileno(), 2)
    os._exit(cli(list(overrides)))


def usual_seconds(durations: Path) -> dict[str, float]:
    """Median duration of each phase."""
    seconds: dict[str, list[float]] = {}
    for line in lines_of(durations):
        seconds.setdefault(line["phase"], []).append(line["seconds"])
    return {phase: sorted(found)[len(found) // 2] for phase, found in seconds.items()}


def lines_of(path: Path) -> list[dict[str, Any]]:
    """What the processes have written down."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _append(path: Path, facts: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(facts) + "\n")
