"""`python -m train` as a command whose remote trackers fail in a chosen way; wandb's hooks at the exit included."""

import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from typing import Any

from tests.helpers.wandb_files import service_processes

FAULT_STEP = 4
PATIENCE_SECONDS = 60


def absent() -> None:
    """Wandb is not installed."""

    class Finder(MetaPathFinder):
        def find_spec(self, fullname: str, *_: Any) -> None:
            if fullname == "wandb":
                raise ModuleNotFoundError("No module named 'wandb'", name=fullname)

    sys.meta_path.insert(0, Finder())


def killed() -> None:
    """Wandb's process is killed while the run trains."""
    _at_step(FAULT_STEP, lambda: _signal(signal.SIGKILL))


def stopped() -> None:
    """Wandb's process hangs: it is stopped, and reads nothing any more."""
    _at_step(FAULT_STEP, lambda: _signal(signal.SIGSTOP))


def unreachable() -> None:
    """A server that is not waited for long: the record then goes on offline, and is complete."""
    importlib.import_module("train.tracker_wandb")._INIT_SECONDS = 1.0
    importlib.import_module("train.remote_trackers").CLOSE_SECONDS = 60.0


def full_disk() -> None:
    """There is no room for TensorBoard's files."""
    writer = importlib.import_module("tensorboardX.record_writer")
    writer.open_file = lambda _: open("/dev/full", "wb")  # noqa: SIM115


def nothing() -> None:
    """The fault is outside."""


def main(fault: str, words: list[str]) -> None:
    """What `train.__main__` does, after a fault is prepared; the end of the run waits for a tracker for 3 seconds."""
    from train import remote_trackers
    from train.fast_exit import end_fast
    from train.main import cli

    remote_trackers.CLOSE_SECONDS = remote_trackers._CLOSE_OFFLINE_SECONDS = 3.0
    globals()[fault]()
    code = cli(words)
    end_fast(code)
    sys.exit(code)


def _signal(number: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := service_processes()):
        assert time.monotonic() < deadline, "wandb has no process"
        time.sleep(0.05)
    for process in found:
        os.kill(process, number)


def _at_step(step: int, act: Callable[[], None]) -> None:
    metrics = importlib.import_module("train.metrics_file")
    log = metrics.JsonlTracker.log_metrics

    def logged(tracker: Any, line: dict[str, Any]) -> None:
        if line["step"] == step:
            act()
        log(tracker, line)

    metrics.JsonlTracker.log_metrics = logged
