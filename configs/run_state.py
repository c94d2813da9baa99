"""Is a run being trained? status.json says "running" for ever after a kill; its generation file and lock know better.

Every start of a run creates the next file in runs/NAME/generations/ (train/generations.py); a process that trains holds
a lock on its file, and touches it every few seconds. Looking changes nothing, and asks nobody.
"""

import contextlib
import errno
import fcntl
import os
import re
import socket
import time
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from configs.errors import RecordError
from configs.records import Count, ShortText, decode
from configs.run_files import RunPaths, read_status, whole_lines

_NAME = re.compile(r"[0-9]{6,15}")
# Of a file on another machine, by the clocks of both: it is touched every few seconds.
_FRESH_SECONDS = 60.0


@dataclass(frozen=True)
class Machine:
    """Where a process runs."""

    host: ShortText
    """Its name."""
    boot: ShortText
    """Changes with every start of its kernel; "" if unknown. Containers may share a name, but not a kernel as well."""


@dataclass(frozen=True)
class GenerationFacts:
    """What a process has written into its generation file, all lines together."""

    machine: Machine | None = None
    pid: Count = 0
    launch: dict[str, Count | ShortText] = field(default_factory=dict)
    """Who started it (train.world.Launch)."""
    continues_after: Count | None = None
    """Step of the checkpoint that it continued from; None: it did not come so far."""
    ending: ShortText | None = None
    """done, stopped or failed; None: it is at work, or could not say."""


def this_machine() -> Machine:
    """The machine that this process runs on."""
    boot = ""
    with contextlib.suppress(OSError):  # not Linux
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return Machine(socket.gethostname(), boot)


def generation_numbers(run: Path) -> list[int]:
    """All generations of a run, in order; none if it has no such folder.

    Raises:
        OSError: the file system failed.
    """
    try:
        names = os.listdir(RunPaths(run).generations)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(int(name) for name in names if _NAME.fullmatch(name))


def generation_path(run: Path, number: int) -> Path:
    """The file of a generation."""
    return RunPaths(run).generations / f"{number:06d}"


def read_generation(run: Path, number: int) -> GenerationFacts | None:
    """Read what a process wrote about itself; None if that is nothing, yet or any more.

    Lines that cannot be read are passed over: the last one is cut where a process was killed.

    Raises:
        OSError: the file system failed.
    """
    path = generation_path(run, number)
    try:
        lines = whole_lines(path)
    except RecordError:
        return None
    known = GenerationFacts()
    for line in lines:
        with contextlib.suppress(RecordError):
            added = decode(line, GenerationFacts, str(path))
            known = replace(known, **{name: getattr(added, name) for name in _names_in(added)})
    return None if known.machine is None else known


def shown_state(run: Path) -> str:
    """The state of a run for people: that of status.json, or "interrupted" where it is out of date.

    Returns:
        running, done, stopped, failed, interrupted, or "unknown" without a status.json.

    Raises:
        RecordError: status.json cannot be read.
        OSError: the file system failed.
    """
    status = read_status(run)
    if status is None:
        return "unknown"
    if status.state == "running" and not is_at_work(run):
        return "interrupted"
    return status.state


def is_at_work(run: Path) -> bool:
    """True if a process trains the run, as far as can be known without waiting.

    Of a process on another machine the age of its file is judged, by the clocks of both.

    Raises:
        OSError: the file system failed.
    """
    numbers = generation_numbers(run)
    if not numbers:
        return False
    facts = read_generation(run, numbers[-1])
    if facts is not None and facts.ending is not None:
        return False
    if facts is not None and facts.machine == this_machine():
        holds = is_locked(run, numbers[-1])
        if holds is not None:
            return holds
    modified = os.stat(generation_path(run, numbers[-1]), follow_symlinks=False).st_mtime
    return abs(time.time() - modified) < _FRESH_SECONDS


def is_locked(run: Path, number: int) -> bool | None:
    """True if a process on this machine holds a generation; None: the file system has no locks, or the file is none.

    Raises:
        OSError: the file system failed.
    """
    try:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(generation_path(run, number), flags)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP, errno.EACCES, errno.ENXIO):
            raise
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


def _names_in(facts: GenerationFacts) -> list[str]:
    nothing = GenerationFacts()
    names = (each.name for each in fields(facts))
    return [name for name in names if getattr(facts, name) != getattr(nothing, name)]
