"""Attempts at a run: which one is the latest, and what the earlier ones may still do.

Every attempt creates the next file in runs/NAME/generations/ exclusively; its number is the attempt's generation. The
highest one owns the run. An earlier attempt may still be running, because its node was cut off or its process was
paused, and it cannot be ended from here. So it is fenced: before every visible change it checks whether it is still the
latest (`Generation.fence`), and a checkpoint that it wrote in spite of that is recognised by its generation (`History`).

A second start while the run is in use is refused. To find out whether the latest attempt is still running, a start
checks, in this order:

1. its record: an attempt that ends writes how it ended;
2. the scheduler: a requeued job is over, and so is an earlier step of the same job that ran on another host;
3. on the same host, the kernel: a running process holds a lock on its generation file;
4. on another host, its heartbeat: a running process touches that file every few seconds. The start watches the file for
   changes, and does not interpret its time, because the clocks of nodes and file systems may differ by hours.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from configs.at_work import generation_numbers, generation_path, is_locked
from configs.errors import CheckpointError, DistributedError, RecordError, RunFolderError
from configs.interventions import Interventions, read_interventions
from configs.records import convert
from configs.run_checkpoints import committed
from configs.run_paths import RunPaths
from configs.run_state import Machine, read_generation, this_machine
from glm.checkpoint.reader import read_manifest
from train.failures import may_pass
from train.world import Launch

HEARTBEAT_SECONDS = 5.0
# An attempt on another host that does not touch its file for so long, while it is watched, is over.
LEASE_SECONDS = 20.0
# How long to wait for a previous attempt that the same launcher started and is ending.
PATIENCE_SECONDS = 600.0
_POLL_SECONDS = 0.2
# Between a file's creation and its first line.
_FIRST_LINE_SECONDS = 5.0
_PROBE = re.compile(r"\.probe-[0-9]+-[0-9]+")


@dataclass(frozen=True)
class AttemptRecord:
    """What an attempt has written about itself."""

    generation: int
    machine: Machine
    pid: int
    launch: Launch
    continues_after: int | None
    """Step of the checkpoint that it continues from; None if it ended before choosing one."""
    ending: str | None
    """done, stopped or failed; None if it is still running, or was killed."""

    @property
    def holder(self) -> str:
        """Name the process."""
        return f"host {self.machine.host}, pid {self.pid}"


@dataclass(frozen=True)
class History:
    """Which checkpoints belong to the history of a run.

    When an attempt continues after step s, checkpoints of earlier attempts after step s no longer belong to the history,
    even if they are written later.
    """

    continues_after: dict[int, int]
    """Step by generation, of the attempts that trained."""
    went_back: Sequence[tuple[int, int]] = ()
    """Generation that decided to go back, and the step to which, of each rollback; it may not have been carried out."""

    def admits(self, generation: int, step: int) -> bool:
        """True unless a later attempt began before this checkpoint's step, or its own went back to before it."""
        return all(
            step <= first for later, first in self.continues_after.items() if later > generation
        ) and all(step <= first for decided, first in self.went_back if decided >= generation)

    @classmethod
    def read(cls, run: Path, interventions: Interventions | None = None) -> "History":
        """Read the generations of a run folder.

        Args:
            run: run folder.
            interventions: of the run, where they are known; default: those of the folder.
        """
        records = (_read(run, number) for number in generation_numbers(run))
        found = read_interventions(run) if interventions is None else interventions
        return cls(
            {
                record.generation: record.continues_after
                for record in records
                if record is not None and record.continues_after is not None
            },
            [(each.generation, each.checkpoint_step) for each in found.rollbacks],
        )


class Generation:
    """The generation of this attempt; only rank 0 has one.

    Args:
        run: run folder.
        number: number of the generation.
        descriptor: open descriptor of the generation's file, which is locked.
        previous: the previous attempt.
        launch: who started this process.
    """

    def __init__(
        self,
        run: Path,
        number: int,
        descriptor: int,
        previous: AttemptRecord | None,
        launch: Launch,
    ) -> None:
        self.number = number
        self.previous = previous
        self._launch = launch
        self._run = run
        self._descriptor = descriptor
        self._has_ended = threading.Event()
        self._is_superseded = False
        self._heartbeat = threading.Thread(
            target=self._send_heartbeats, name="heartbeat", daemon=True
        )
        self._heartbeat.start()

    @property
    def is_superseded(self) -> bool:
        """True if the heartbeat has found a later attempt; costs nothing to ask."""
        return self._is_superseded

    def fence(self) -> None:
        """Ask before a visible change.

        Raises:
            DistributedError: a later attempt has begun.
        """
        _ask_the_server(self._run)
        later = [other for other in generation_numbers(self._run) if other > self.number]
        if not later:
            return
        self._is_superseded = True
        record = _read(self._run, later[-1])
        holder = "" if record is None else f" ({record.holder})"
        raise DistributedError(
            f"The run {self._run} was started again{holder}: this process, generation {self.number}, ends and "
            "changes nothing any more."
        )

    def renew(self) -> None:
        """Begin the next generation in this process, whose run is set back to a checkpoint.

        Raises:
            DistributedError: a later attempt has begun.
            OSError: the file system failed.
        """
        self.fence()
        try:
            descriptor = _create(self._run, self.number + 1, self._launch)
        except FileExistsError:
            self.fence()
            raise
        previous, self._descriptor = self._descriptor, descriptor
        self.number += 1
        with contextlib.suppress(OSError):
            os.write(previous, (json.dumps({"ending": "set back"}) + "\n").encode())
        os.close(previous)

    def continue_after(self, step: int) -> None:
        """Record which checkpoint this attempt continues from, before it changes anything."""
        self._append({"continues_after": step})

    def end(self, state: str) -> None:
        """Record how the attempt ended, and release the run."""
        self._has_ended.set()
        with contextlib.suppress(OSError):
            self._append({"ending": state})
        os.close(self._descriptor)

    def _append(self, facts: dict[str, Any]) -> None:
        os.write(self._descriptor, (json.dumps(facts) + "\n").encode())

    def _send_heartbeats(self) -> None:
        while not self._has_ended.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError):  # other writers report errors of the file system
                os.utime(generation_path(self._run, self.number))
                self._is_superseded = max(generation_numbers(self._run)) > self.number


def begin(run: Path, launch: Launch, log: Callable[[str], None] = lambda _: None) -> Generation:
    """Begin an attempt of a run.

    Args:
        run: run folder; exists.
        launch: who started this process.
        log: gets a line if it has to wait for the previous attempt.

    Raises:
        RunFolderError: a running process trains it, or the folder cannot be written.
        OSError: the file system failed.
    """
    try:
        RunPaths(run).generations.mkdir(exist_ok=True)
        while True:
            previous = _latest(run, log)
            if previous is not None:
                _wait_until_over(run, previous, launch, log)
            number = (_highest_before(run) if previous is None else previous.generation) + 1
            try:
                descriptor = _create(run, number, launch)
            except FileExistsError:
                continue  # another start was faster: look at that one
            _remove_probes(run)
            return Generation(run, number, descriptor, previous, launch)
    except OSError as error:
        # A file system that was made read-only long before is the user's to correct; one that fails later is not.
        if may_pass(error) and error.errno != errno.EROFS:
            raise
        raise RunFolderError(
            f"The run folder {run} cannot be written: {error.strerror}. Make room, or choose another with run.dir=PATH."
        ) from error


def _highest_before(run: Path) -> int:
    """Highest generation of a run that has lost its generation files, as a second copy has none; 0 for a new run."""
    known = [rollback.generation for rollback in read_interventions(run).rollbacks]
    for folder in committed(RunPaths(run).checkpoints):
        with contextlib.suppress(CheckpointError):  # reported by whoever chooses a checkpoint
            known.append(read_manifest(folder).generation)
    return max(known, default=0)


def _create(run: Path, number: int, launch: Launch) -> int:
    """Make a generation's file, lock it, and write who it is.

    Raises:
        FileExistsError: another process was faster.
        OSError: the file system failed.
    """
    descriptor = os.open(
        generation_path(run, number), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o644
    )
    with contextlib.suppress(OSError):  # not every file system has locks: the heartbeat is enough
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    record = {"machine": asdict(this_machine()), "pid": os.getpid(), "time": time.time()}
    os.write(descriptor, (json.dumps({**record, "launch": asdict(launch)}) + "\n").encode())
    return descriptor


def _wait_until_over(
    run: Path, previous: AttemptRecord, launch: Launch, log: Callable[[str], None]
) -> None:
    """Return once the previous attempt is over.

    Raises:
        RunFolderError: it is still running.
    """
    patience = PATIENCE_SECONDS if launch.shares_launcher(previous.launch) else 0.0
    deadline = time.monotonic() + patience
    was_logged = False

    def log_once(text: str) -> None:
        nonlocal was_logged
        if not was_logged:
            log(text)
        was_logged = True

    while _is_running(run, previous, launch, log_once):
        if time.monotonic() >= deadline:
            raise RunFolderError(
                f"The run {run} is in use by {previous.holder}. Wait for it, stop it with: touch {RunPaths(run).stop_file}, "
                "or start another run with run.name=NAME."
            )
        log_once(f"Waiting for the previous process of {run} to end ({previous.holder}).")
        time.sleep(_POLL_SECONDS)
        previous = _read(run, previous.generation) or previous


def _is_running(
    run: Path, previous: AttemptRecord, launch: Launch, log: Callable[[str], None]
) -> bool:
    here = this_machine()
    if previous.ending is not None or launch.follows(
        previous.launch, previous.machine.host == here.host
    ):
        return False
    holds = is_locked(run, previous.generation) if previous.machine == here else None
    if holds is not None:
        return holds
    log(
        f"The last process that trained {run} ({previous.holder}) did not say how it ended. Watching for "
        f"{LEASE_SECONDS:.0f} seconds whether it is still running."
    )
    return _sends_heartbeats(run, previous.generation)


def _sends_heartbeats(run: Path, generation: int) -> bool:
    """True if the file is touched while it is watched, by the clock of this process alone, for the lease at most."""
    first = _modified(run, generation)
    deadline = time.monotonic() + LEASE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        if _modified(run, generation) != first:
            return True
    return False


def _modified(run: Path, generation: int) -> int:
    # An opened file's times are asked of the server; a name's may come from the client's cache.
    descriptor = os.open(generation_path(run, generation), os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)


def _ask_the_server(run: Path) -> None:
    """Make a file and remove it.

    The client of a network file system may answer from its cache that a name does not exist; after a change of its own
    in the folder it asks the server.
    """
    probe = RunPaths(run).generations / f".probe-{os.getpid()}-{threading.get_native_id()}"
    with contextlib.suppress(OSError):  # a full disk: the cached answer must do
        try:
            os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        finally:
            probe.unlink(missing_ok=True)


def _remove_probes(run: Path) -> None:
    """Remove what processes left that were killed while they asked; one that still asks does not miss its file."""
    with contextlib.suppress(OSError):
        folder = RunPaths(run).generations
        for name in filter(_PROBE.fullmatch, os.listdir(folder)):
            (folder / name).unlink(missing_ok=True)


def _latest(run: Path, log: Callable[[str], None]) -> AttemptRecord | None:
    """The latest attempt's record; waits for one that is just being written."""
    numbers = generation_numbers(run)
    if not numbers:
        return None
    deadline = time.monotonic() + _FIRST_LINE_SECONDS
    while True:
        record = _read(run, numbers[-1])
        if record is not None:
            return record
        if time.monotonic() >= deadline:  # killed while it started, or its file is damaged
            path = generation_path(run, numbers[-1])
            if is_locked(run, numbers[-1]):
                raise RunFolderError(
                    f"A process on this machine trains {run}, but {path} does not say which. Wait for it, or stop it "
                    f"with: touch {RunPaths(run).stop_file}"
                )
            log(f"{path} cannot be read: it is skipped.")
            return AttemptRecord(numbers[-1], Machine("unknown", ""), 0, Launch(), None, "failed")
        time.sleep(_POLL_SECONDS)


def _read(run: Path, generation: int) -> AttemptRecord | None:
    """An attempt's record; None while it is being written, or if it cannot be read."""
    facts = read_generation(run, generation)
    if facts is None or facts.machine is None:
        return None
    try:
        launch = convert(facts.launch, Launch, str(generation_path(run, generation)))
    except RecordError:
        return None
    return AttemptRecord(
        generation, facts.machine, facts.pid, launch, facts.continues_after, facts.ending
    )
