"""Lives of a run: which one is the latest, and what the earlier ones may still do.

Every life creates the next file in runs/NAME/generations/ exclusively; its number is the life's generation. The
highest one owns the run. A former life may still be there - its node was cut off, or its process was paused - and
nobody can end it from here, so it is fenced: it asks before every visible change whether it is still the latest
(`Generation.fence`), and what it slipped in all the same is recognised by its generation (`History`).

A second start while the run is in use is refused. Whether the latest life still lives is answered by, in this order:

1. its own last word: it wrote how it ended;
2. the scheduler: a requeued job is over, and so is an earlier step of the same job that ran on another host;
3. on the same host the kernel: a live process holds a lock on its generation file;
4. elsewhere its heartbeat: a live process touches that file every few seconds. Times are compared by the clock of
   the file system, for those of two nodes may differ.
"""

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from configs.errors import DistributedError, RunFolderError
from train.failures import may_pass
from train.world import Launch, Machine, this_machine

FOLDER = "generations"
BEAT_SECONDS = 5.0
# A life on another host that has not touched its file for so long is over.
LEASE_SECONDS = 20.0
# How long to wait for a former life that the same launcher has started: it is being ended.
PATIENCE_SECONDS = 600.0
_POLL_SECONDS = 0.2
# Between a file's creation and its first line.
_BIRTH_SECONDS = 5.0


@dataclass(frozen=True)
class Record:
    """What a life has written about itself."""

    generation: int
    machine: Machine
    pid: int
    launch: Launch
    continues_after: int | None
    """Step of the checkpoint that it continues from; None: it did not come so far."""
    ending: str | None
    """done, stopped or failed; None: it lives, or could not say."""

    @property
    def holder(self) -> str:
        """Name the process."""
        return f"host {self.machine.host}, pid {self.pid}"


@dataclass(frozen=True)
class History:
    """Which checkpoints belong to the history of a run.

    A life that continues after step s leaves behind whatever former lives saved beyond s, also what they save later.
    """

    continues_after: dict[int, int]
    """Step by generation, of the lives that trained."""

    def admits(self, generation: int, step: int) -> bool:
        """True unless a later life began before this checkpoint's step."""
        return all(
            step <= first for later, first in self.continues_after.items() if later > generation
        )

    @classmethod
    def read(cls, run: Path) -> "History":
        """Read the generations of a run folder."""
        numbers = _numbers(run) if (run / FOLDER).is_dir() else []
        records = (_read(run, number) for number in numbers)
        return cls(
            {
                record.generation: record.continues_after
                for record in records
                if record is not None and record.continues_after is not None
            }
        )


class Generation:
    """Of this life of a run; only its rank 0 has one.

    Args:
        run: run folder.
        number: of the generation.
        descriptor: of its file, locked.
        former: the life before it.
    """

    def __init__(self, run: Path, number: int, descriptor: int, former: Record | None) -> None:
        self.number = number
        self.former = former
        self._run = run
        self._descriptor = descriptor
        self._has_ended = threading.Event()
        self._is_superseded = False
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._heart.start()

    @property
    def is_superseded(self) -> bool:
        """True if the heartbeat has found a later life; costs nothing to ask."""
        return self._is_superseded

    def fence(self) -> None:
        """Ask before a visible change.

        Raises:
            DistributedError: a later life has begun.
        """
        _ask_the_server(self._run)
        later = [other for other in _numbers(self._run) if other > self.number]
        if not later:
            return
        self._is_superseded = True
        record = _read(self._run, later[-1])
        holder = "" if record is None else f" ({record.holder})"
        raise DistributedError(
            f"A later life of the run {self._run} has begun{holder}: this one, generation {self.number}, ends and "
            "changes nothing any more."
        )

    def continue_after(self, step: int) -> None:
        """Record which checkpoint this life continues from, before it changes anything."""
        self._append({"continues_after": step})

    def end(self, state: str) -> None:
        """Say how it ended, and let go of the run."""
        self._has_ended.set()
        with contextlib.suppress(OSError):
            self._append({"ending": state})
        os.close(self._descriptor)

    def _append(self, facts: dict[str, Any]) -> None:
        os.write(self._descriptor, (json.dumps(facts) + "\n").encode())

    def _beat(self) -> None:
        while not self._has_ended.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):  # the disk's troubles are others' to report
                os.utime(_path(self._run, self.number))
                self._is_superseded = max(_numbers(self._run)) > self.number


def begin(run: Path, launch: Launch, say: Callable[[str], None] = lambda _: None) -> Generation:
    """Begin a life of a run.

    Args:
        run: run folder; exists.
        launch: who started this process.
        say: told if it has to wait for the former life.

    Raises:
        RunFolderError: a live process trains it, or the folder cannot be written.
        OSError: the file system failed.
    """
    try:
        (run / FOLDER).mkdir(exist_ok=True)
        while True:
            former = _latest(run)
            if former is not None:
                _wait_until_over(run, former, launch, say)
            number = 1 if former is None else former.generation + 1
            try:
                descriptor = os.open(
                    _path(run, number), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o644
                )
            except FileExistsError:
                continue  # another start was faster: look at that one
            with contextlib.suppress(
                OSError
            ):  # not every file system has locks: the heartbeat will do
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            record = {"machine": asdict(this_machine()), "pid": os.getpid(), "time": time.time()}
            os.write(descriptor, (json.dumps({**record, "launch": asdict(launch)}) + "\n").encode())
            return Generation(run, number, descriptor, former)
    except OSError as error:
        if may_pass(error):
            raise
        raise RunFolderError(
            f"The run folder {run} cannot be written: {error.strerror}. Make room, or choose another with run.dir=PATH."
        ) from error


def _wait_until_over(run: Path, former: Record, launch: Launch, say: Callable[[str], None]) -> None:
    """Return once the former life is over.

    Raises:
        RunFolderError: it lives.
    """
    patience = PATIENCE_SECONDS if launch.shares_launcher(former.launch) else 0.0
    deadline = time.monotonic() + patience
    has_said = False
    while _lives(run, former, launch):
        if time.monotonic() >= deadline:
            raise RunFolderError(
                f"The run {run} is in use by {former.holder}. Wait for it, stop it with: touch {run / 'stop'}, "
                "or start another run with run.name=NAME."
            )
        if not has_said:
            say(f"Waiting for the former life of {run} to end ({former.holder}).")
            has_said = True
        time.sleep(_POLL_SECONDS)
        former = _read(run, former.generation) or former


def _lives(run: Path, former: Record, launch: Launch) -> bool:
    here = this_machine()
    if former.ending is not None or launch.follows(former.launch, former.machine.host == here.host):
        return False
    is_locked = _is_locked(run, former.generation) if former.machine == here else None
    return _beats(run, former.generation) if is_locked is None else is_locked


def _is_locked(run: Path, generation: int) -> bool | None:
    """None: the file system has no locks."""
    with _path(run, generation).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return None
        return False


def _beats(run: Path, generation: int) -> bool:
    """True if the file was touched within the lease; looks for as long as it takes to know."""
    first = _modified(run, generation)
    while True:
        last = _modified(run, generation)
        if last != first:
            return True
        if _ask_the_server(run) - last > LEASE_SECONDS:
            return False
        time.sleep(_POLL_SECONDS)


def _modified(run: Path, generation: int) -> float:
    # An opened file's times are asked of the server; a name's may come from the client's cache.
    with _path(run, generation).open() as file:
        return os.fstat(file.fileno()).st_mtime


def _ask_the_server(run: Path) -> float:
    """Make a file and remove it; returns its time by the file system's clock.

    The client of a network file system may answer from its cache that a name does not exist; after a change of its own
    in the folder it asks the server.
    """
    probe = run / FOLDER / f".probe-{os.getpid()}-{threading.get_native_id()}"
    try:
        with probe.open("w") as file:
            os.utime(file.fileno())
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()  # a full disk: what is cached must do
    finally:
        probe.unlink(missing_ok=True)


def _latest(run: Path) -> Record | None:
    """The latest life's record; waits for one that is just being written."""
    numbers = _numbers(run)
    if not numbers:
        return None
    deadline = time.monotonic() + _BIRTH_SECONDS
    while True:
        record = _read(run, numbers[-1])
        if record is not None:
            return record
        if time.monotonic() >= deadline:  # it died while it was born
            nobody = Machine("unknown", "")
            return Record(numbers[-1], nobody, 0, Launch(), None, "failed")
        time.sleep(_POLL_SECONDS)


def _numbers(run: Path) -> list[int]:
    """All generations, in order."""
    return sorted(int(name) for name in os.listdir(run / FOLDER) if name.isdecimal())


def _path(run: Path, generation: int) -> Path:
    return run / FOLDER / f"{generation:06d}"


def _read(run: Path, generation: int) -> Record | None:
    """A life's record; None while it is being written."""
    facts: dict[str, Any] = {}
    for line in _whole_lines(_path(run, generation)):
        with contextlib.suppress(ValueError):
            facts.update(json.loads(line))
    try:
        return Record(
            generation,
            Machine(**facts["machine"]),
            facts["pid"],
            Launch(**facts["launch"]),
            facts.get("continues_after"),
            facts.get("ending"),
        )
    except (KeyError, TypeError):
        return None


def _whole_lines(path: Path) -> Iterator[str]:
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            yield line
