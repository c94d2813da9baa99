"""One rank's part in one save attempt to one store; it runs in a thread and uses no collectives.

Every rank writes its file and a record of it (glm/checkpoint/record.py). Rank 0 waits for all records, merges them,
and commits. A rank that cannot write leaves no record. The ranks exchange their errors between two steps
(train/checkpoint/saver.py), and all abandon the attempt.
"""

import contextlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from configs.errors import CheckpointError, DistributedError
from glm.checkpoint.manifest import Manifest
from glm.checkpoint.record import RankRecord, read_record, record_path, write_record
from glm.checkpoint.writer import Piece, write_rank_file
from train.checkpoint.store import CheckpointStore, Pins
from train.failures import may_pass

# How long rank 0 waits for the slowest rank's record after writing its own file.
_PATIENCE_SECONDS = 1800.0
_SHORTEST_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.005, 1.0
# A rank that exits because of an error waits this long for the other ranks' files, or twice its own writing time.
_SHORTEST_GRACE_SECONDS = 2.0


@dataclass(frozen=True)
class RankPart:
    """What one rank stores."""

    name: str
    """Name of the rank's file."""
    pieces: Sequence[Piece]
    """The rank's boxes in host memory; they must not change before the attempt is finished."""
    shapes: dict[str, list[int]]
    slots: dict[str, list[str]]
    label: str
    """The rank, for messages."""


@dataclass(frozen=True)
class CommitPlan:
    """What the committing rank needs in addition."""

    draft: Manifest
    """The manifest, still without files, fragments, tensors and slots."""
    names: Sequence[str]
    """Names of all ranks' files."""
    pins: Pins
    """Checkpoints that a diverged run can go back to."""


class SaveAttempt:
    """One save attempt, on this rank.

    Args:
        place: the store that the checkpoint is written to.
        folder: the checkpoint's folder in that store.
        part: what this rank stores.
        commit_plan: on rank 0, what to commit; None on the others.
        refusal: why nothing may be written there; None if writing is allowed.
    """

    def __init__(
        self,
        place: CheckpointStore,
        folder: Path,
        part: RankPart,
        commit_plan: CommitPlan | None,
        refusal: str | None = None,
    ) -> None:
        self.folder = folder
        self.error: str | None = None
        """Why the attempt failed on this rank."""
        self.may_pass = False
        """True if a file system failed, so that a restart may succeed. A full disk does not count."""
        self.fatal: Exception | None = None
        """Set if this process must exit because a later attempt has begun. The checkpoint may be committed all the same."""
        self.written = threading.Event()
        """Set once this rank's file and record are on the disk, or the attempt has failed."""
        self.finished = threading.Event()
        """Set once the thread has finished: on rank 0 the checkpoint is committed, or the attempt has failed."""
        self._place = place
        self._part = part
        self._commit_plan = commit_plan
        self._refusal = refusal
        self._given_up = threading.Event()
        self._is_committed = False
        self._seconds = 0.0

    def run(self) -> None:
        """Do this rank's part. Never raises, because an exception in the thread would be lost; see `error` and `fatal`."""
        started = time.monotonic()
        try:
            self._write()
            self._seconds = time.monotonic() - started
            self.written.set()
            if self._commit_plan is not None:
                self._commit(self._commit_plan)
        except DistributedError as problem:
            self.fatal, self.error = problem, str(problem)
        except OSError as problem:
            path = problem.filename or self.folder / self._part.name
            self.error = f"[{self._part.label}] {path}: {problem.strerror or problem}"
            self.may_pass = may_pass(problem)
        except CheckpointError as problem:
            self.error = str(problem)
        except Exception as problem:
            self.error = f"[{self._part.label}] {self.folder}: {problem!r}"
        finally:
            self.written.set()
            self.finished.set()
            if self.error is not None or self._given_up.is_set():
                self._discard()

    def fail(self, reason: str) -> None:
        """Mark the attempt as failed, in place of `run`."""
        self.error = f"[{self._part.label}] {self.folder}: {reason}"
        self.written.set()
        self.finished.set()

    def give_up(self) -> None:
        """Abandon the attempt because a rank has failed: nothing is committed, and this rank's files are deleted."""
        self._given_up.set()
        if self.finished.is_set():
            self._discard()

    def leave(self) -> None:
        """Wait for a limited time for the save to finish, without collectives: the other ranks may have exited."""
        self.written.wait(_PATIENCE_SECONDS)
        self.finished.wait(max(_SHORTEST_GRACE_SECONDS, 2 * self._seconds))

    def _write(self) -> None:
        if self._refusal is not None:
            raise CheckpointError(self._refusal)
        if self.folder.is_symlink():
            raise CheckpointError(
                f"{self.folder} is a symbolic link; a checkpoint must be a folder of its own"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self._part
        file, fragments = write_rank_file(self.folder, part.name, part.pieces)
        write_record(self.folder, RankRecord(part.name, file, fragments, part.shapes, part.slots))

    def _commit(self, plan: CommitPlan) -> None:
        records = self._collect(plan.names)
        if records is None:
            return
        manifest = replace(
            plan.draft,
            tensors={name: shape for record in records for name, shape in record.shapes.items()},
            slots={name: slots for record in records for name, slots in record.slots.items()},
            files={record.name: record.file for record in records},
            fragments=[part for record in records for part in record.fragments],
        )
        self._place.commit(self.folder, manifest)
        self._is_committed = True
        # From here on the save must not be reported as failed: its files would be deleted, and a later attempt of the
        # run may already be reading them.
        try:
            self._place.clean(self.folder, manifest, plan.pins)
        except Exception as problem:
            self.fatal = problem

    def _collect(self, names: Sequence[str]) -> list[RankRecord] | None:
        """Wait for every rank's record; None if the attempt was given up."""
        found: dict[str, RankRecord] = {}
        deadline = time.monotonic() + _PATIENCE_SECONDS
        pause = _SHORTEST_POLL_SECONDS
        while True:
            for name in names:
                record = None if name in found else read_record(self.folder, name)
                if record is not None:
                    found[name] = record
            missing = [name for name in names if name not in found]
            if not missing:
                return [found[name] for name in names]
            if time.monotonic() > deadline:
                raise CheckpointError(
                    f"{self.folder}: the files of {len(missing)} of {len(names)} ranks did not appear within "
                    f"{_PATIENCE_SECONDS / 60:.0f} minutes ({', '.join(missing[:4])}, ...). This folder must be on a "
                    "file system that all nodes share."
                )
            if self._given_up.wait(pause):
                return None
            pause = min(2 * pause, _LONGEST_POLL_SECONDS)

    def _discard(self) -> None:
        if self._is_committed:
            return
        with contextlib.suppress(OSError):
            (self.folder / self._part.name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            record_path(self.folder, self._part.name).unlink(missing_ok=True)
