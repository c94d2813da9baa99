"""Whether a run is being trained, from its generation files and their locks. Imports the standard library only.

Every start of a run creates the next file in runs/NAME/generations/ (train/generations.py); a process that trains holds
a lock on its file, and touches it every few seconds. These functions only read.
"""

import contextlib
import errno
import fcntl
import os
import re
import socket
import time
from pathlib import Path
from typing import Any

from configs.errors import RecordError
from configs.run_lines import json_object, whole_lines
from configs.run_paths import RunPaths

_NAME = re.compile(r"[0-9]{6,15}")
# Of a file on another machine, by the clocks of both: it is touched every few seconds.
_FRESH_SECONDS = 60.0


def shown(state: str, run: Path) -> str:
    """The state of a run as people should see it.

    Args:
        state: the state in status.json, which still says "running" after a kill.
        run: run folder.

    Returns:
        The same, or "interrupted" if the run is not being trained although status.json says so.

    Raises:
        OSError: the file system failed.
    """
    return "interrupted" if state == "running" and not is_at_work(run) else state


def is_at_work(run: Path) -> bool:
    """True if a process trains the run, as far as can be known without waiting.

    For a process on another machine the age of its file decides, by the clocks of both machines.

    Raises:
        OSError: the file system failed.
    """
    numbers = generation_numbers(run)
    if not numbers:
        return False
    facts: dict[str, Any] = {}
    for line in generation_lines(generation_path(run, numbers[-1])):
        facts |= line
    if isinstance(facts.get("ending"), str):
        return False
    if facts.get("machine") == this_machine():
        holds = is_locked(run, numbers[-1])
        if holds is not None:
            return holds
    modified = os.stat(generation_path(run, numbers[-1]), follow_symlinks=False).st_mtime
    return abs(time.time() - modified) < _FRESH_SECONDS


def this_machine() -> dict[str, str]:
    """The machine that this process runs on: its host name, and an identifier that changes with every boot."""
    boot = ""
    with contextlib.suppress(OSError):  # not Linux
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return {"host": socket.gethostname(), "boot": boot}


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


def generation_lines(path: Path) -> list[dict[str, Any]]:
    """What a process has written about itself, one record per line; lines that cannot be read are passed over.

    If the process was killed, its last line may be incomplete.

    Raises:
        OSError: the file system failed.
    """
    found = list[dict[str, Any]]()
    with contextlib.suppress(RecordError):  # no file that can be read
        for line in whole_lines(path):
            with contextlib.suppress(RecordError):
                found.append(json_object(line, str(path)))
    return found
