"""One rank's part in one try to save into one place; its work is done in a thread, without any collective.

Every rank writes its file and a record of it (glm/checkpoint/record.py). Rank 0 waits for all records, puts them
together, and commits. A rank that cannot write leaves no record; the ranks tell each other between two steps
(train/checkpoint/saver.py), and all give the try up.
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
from train.checkpoint.store import CheckpointStore
from train.failures import may_pass

# How long rank 0 waits for the slowest rank's record, once its own file is there.
_PATIENCE_SECONDS = 1800.0
_SHORTEST_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.005, 1.0
# Among several, ranks that leave because of an error give their peers' files this much time, or twice their own.
_SHORTEST_GRACE_SECONDS = 2.0


@dataclass(frozen=True)
class RankPart:
    """What one rank stores."""

    name: str
    """Of its file."""
    pieces: Sequence[Piece]
    """In host memory; not changed before the attempt is finished."""
    shapes: dict[str, list[int]]
    slots: dict[str, list[str]]
    label: str
    """The rank, for messages."""


@dataclass(frozen=True)
class CommitPlan:
    """What the committing rank does besides."""

    draft: Manifest
    """The manifest without files, fragments, tensors and slots."""
    names: Sequence[str]
    """The files of all ranks."""
    healthy_step: int | None
    """The checkpoint that a diverged run can go back to."""


class SaveAttempt:
    """One try, on this rank.

    Args:
        place: where to.
        folder: of the checkpoint, in that place.
        part: what this rank stores.
        duty: on rank 0, what is to be committed.
        refusal: why nothing may be written there; None: it may.
    """

    def __init__(
        self,
        place: CheckpointStore,
        folder: Path,
        part: RankPart,
        duty: CommitPlan | None,
        refusal: str | None = None,
    ) -> None:
        self.folder = folder
        self.error: str | None = None
        """Why it failed on this rank."""
        self.may_pass = False
        """True if a file system failed, so that a later start may do better; a full disk does not pass by itself."""
        self.fatal: Exception | None = None
        """Set if this process must end: the run has gone on without it. The checkpoint may be committed all the same."""
        self.written = threading.Event()
        """This rank's file and record are on the disk, or it has failed."""
        self.finished = threading.Event()
        """The thread is through with it; on rank 0 the checkpoint is committed, or it has failed."""
        self._place = place
        self._part = part
        self._duty = duty
        self._refusal = refusal
        self._given_up = threading.Event()
        self._is_committed = False
        self._seconds = 0.0

    def run(self) -> None:
        """Do this rank's part; never raises, for nobody would hear it in a thread."""
        started = time.monotonic()
        try:
            self._write()
            self._seconds = time.monotonic() - started
            self.written.set()
            if self._duty is not None:
                self._commit(self._duty)
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
        """Instead of `run`: there is nothing to write."""
        self.error = f"[{self._part.label}] {self.folder}: {reason}"
        self.written.set()
        self.finished.set()

    def give_up(self) -> None:
        """A rank has failed: nobody commits, and nothing of it stays."""
        self._given_up.set()
        if self.finished.is_set():
            self._discard()

    def leave(self) -> None:
        """Wait as long as it makes sense without hearing from the other ranks, which may be gone."""
        self.written.wait(_PATIENCE_SECONDS)
        self.finished.wait(max(_SHORTEST_GRACE_SECONDS, 2 * self._seconds))

    def _write(self) -> None:
        if self._refusal is not None:
            raise CheckpointError(self._refusal)
        if self.folder.is_symlink():
            raise CheckpointError(f"{self.folder} is a link: a checkpoint is written into its run")
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self._part
        file, fragments = write_rank_file(self.folder, part.name, part.pieces)
        write_record(self.folder, RankRecord(part.name, file, fragments, part.shapes, part.slots))

    def _commit(self, duty: CommitPlan) -> None:
        records = self._collect(duty.names)
        if records is None:
            return
        manifest = replace(
            duty.draft,
            tensors={name: shape for record in records for name, shape in record.shapes.items()},
            slots={name: slots for record in records for name, slots in record.slots.items()},
            files={record.name: record.file for record in records},
            fragments=[part for record in records for part in record.fragments],
        )
        self._place.commit(self.folder, manifest)
        self._is_committed = True
        # From here on nothing may say that the save has failed: its files would be deleted, and a later attempt may be
        # reading them already.
        try:
            self._place.clean(self.folder, manifest, duty.healthy_step)
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
                    f"{self.folder}: {len(missing)} of {len(names)} ranks have not shown their files within "
                    f"{_PATIENCE_SECONDS / 60:.0f} minutes ({', '.join(missing[:4])}, ...). All nodes must see one "
                    "and the same folder there."
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
