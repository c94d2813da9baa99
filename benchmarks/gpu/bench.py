"""What a section is given: its device and sizes, a file for its results, and clocks."""

import json
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Bench:
    """One section's process.

    Args:
        folder: for files that the session does not keep.
        results: file that takes a JSON line for each result, at once: a section that is ended keeps what it has.
        is_dry: tiny sizes on CPU.
        wheels: folder of wheels to install.
    """

    folder: Path
    results: Path
    is_dry: bool
    wheels: Path

    @property
    def device(self) -> Any:
        """The torch device: the GPU, or the CPU of a dry run."""
        import torch

        return torch.device("cpu") if self.is_dry else torch.device("cuda", 0)

    def record(self, what: str, **values: Any) -> None:
        """Keep a result."""
        with self.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"what": what, **_rounded(values)}) + "\n")

    def check(self, what: str, is_right: bool, **values: Any) -> None:
        """Keep a result that is right or wrong; the session says so if it is wrong."""
        self.record(what, is_right=bool(is_right), **values)

    def say(self, text: str) -> None:
        """Keep a line for the table."""
        self.record("line", text=text)


def _rounded(value: Any) -> Any:
    """Five digits of every float, so that a line can be read."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value


def milliseconds(call: Callable[[], Any], device: Any, rounds: int = 10) -> float:
    """Median time of a call, by the GPU's own clock; the first two calls do not count. One call on a CPU."""
    import torch

    if device.type == "cpu":
        return _cpu_milliseconds(call)
    for _ in range(2):
        call()
    events = [tuple(torch.cuda.Event(enable_timing=True) for _ in range(2)) for _ in range(rounds)]
    for before, after in events:
        before.record()
        call()
        after.record()
    torch.cuda.synchronize(device)
    return statistics.median(before.elapsed_time(after) for before, after in events)


def _cpu_milliseconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e3


def output_of(command: list[str]) -> str | None:
    """What a program prints; None if it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def graphs_so_far() -> int:
    """Graphs that PyTorch's compiler has made in this process."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]
