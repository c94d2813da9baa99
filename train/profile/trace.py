"""A trace as PyTorch's profiler writes it: the JSON of Chrome's trace viewer, perhaps packed by gzip."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.errors import RecordError, RunFolderError
from configs.nearby import did_you_mean, runs_near
from configs.run_paths import PROFILE, PROFILE_TRACE, RunPaths

_DAMAGED = (
    *(ValueError, KeyError, TypeError, AttributeError, RecursionError),
    *(EOFError, zlib.error, gzip.BadGzipFile),
)
"""What reading something else than a trace raises."""
_RANGE = "user_annotation"
_OPERATORS = frozenset({"cpu_op", _RANGE})
_LAUNCHES = frozenset({"cuda_runtime", "cuda_driver"})
_KERNELS = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})


@dataclass(frozen=True)
class Event:
    """Something that took time; moments in seconds, from an origin of the trace's own."""

    name: str
    start: float
    end: float
    thread: str
    is_range: bool = False
    """Written by this program or a library around what it does; otherwise an operator or a kernel."""
    sequence: int | None = None
    """Joins an operator of a forward pass to its backward pass."""
    correlation: int | None = None
    """Joins a kernel to the call that has started it."""


@dataclass
class Trace:
    """What a rank did in the steps that were profiled."""

    rank: int
    first: int
    last: int
    host: list[Event] = field(default_factory=list[Event])
    """Operators and ranges, in order."""
    launches: list[Event] = field(default_factory=list[Event])
    """Calls of the host that start kernels."""
    kernels: list[Event] = field(default_factory=list[Event])
    """Of a GPU; empty on CPU."""


def traces_of(run: Path, rank: int | None) -> list[Path]:
    """The traces of the steps that were profiled last, by rank.

    Args:
        run: run folder.
        rank: that is wanted; None: all.

    Raises:
        RunFolderError: there are none.
    """
    folder = RunPaths(run).profile
    found: list[tuple[tuple[int, int, int], Path]] = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if name := PROFILE_TRACE.fullmatch(path.name):
            found.append(((int(name[1]), int(name[2]), int(name[3])), path))
    if not found:
        advice = did_you_mean(runs_near(run)) if not RunPaths(run).config.exists() else ""
        raise RunFolderError(
            f"{run} has no trace in {PROFILE}/. "
            f"{advice or 'Train some steps with log.profile_steps=[100,103] first.'}"
        )
    newest = max(steps for (*steps, _), _ in found)
    of_steps = sorted((each, path) for (*steps, each), path in found if steps == newest)
    chosen = [path for each, path in of_steps if rank in (None, each)]
    if not chosen:
        known = ", ".join(str(each) for each, _ in of_steps)
        raise RunFolderError(
            f"{folder} has no trace of rank {rank} for steps {newest[0]} to {newest[1]}. Try --rank with one of: {known}."
        )
    return chosen


def read_trace(path: Path) -> Trace:
    """Read a trace.

    Raises:
        RecordError: it is damaged, or something else.
        OSError: the file system failed.
    """
    name = PROFILE_TRACE.fullmatch(path.name)
    assert name is not None, "traces are found by their names"
    try:
        packed = path.read_bytes()
        whole = json.loads(gzip.decompress(packed) if path.suffix == ".gz" else packed)
        trace = Trace(int(name[3]), int(name[1]), int(name[2]))
        for category, event in _events(whole["traceEvents"]):
            if category in _OPERATORS:
                trace.host.append(event)
            elif category in _LAUNCHES:
                trace.launches.append(event)
            else:
                trace.kernels.append(event)
    except _DAMAGED as error:
        raise RecordError(
            f"{path} is damaged, or no trace of PyTorch's profiler ({type(error).__name__}: {error}). Profile the steps again."
        ) from None
    for events in (trace.host, trace.launches, trace.kernels):
        # What begins at the same time is within what ends last.
        events.sort(key=lambda event: (event.start, -event.end))
    return trace


def _events(found: list[dict[str, Any]]) -> Iterator[tuple[str, Event]]:
    for each in found:
        category = each.get("cat")
        if each.get("ph") != "X" or category not in _OPERATORS | _LAUNCHES | _KERNELS:
            continue
        start = float(each["ts"]) * 1e-6
        arguments: dict[str, Any] = each.get("args") or {}
        yield (
            category,
            Event(
                str(each["name"]),
                start,
                start + float(each.get("dur") or 0.0) * 1e-6,
                f"{each['pid']}/{each['tid']}",
                category == _RANGE,
                arguments.get("Sequence number"),
                arguments.get("correlation"),
            ),
        )


def short_name(name: str) -> str:
    """An operator's or a kernel's name without the template arguments of C++."""
    return re.split(r"[<(]", name.removeprefix("void "), maxsplit=1)[0].strip() or name
