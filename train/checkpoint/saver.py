"""Saving a run's state: every rank writes what it owns, rank 0 commits.

Synchronous in this version: training waits for the disk. The order is that of any later, asynchronous one: pieces of
the state are named, a file is written from them without any collective, the ranks tell each other, rank 0 commits.
A rank's failure (a full disk) is agreed on by all; the save is given up, training goes on, and the checkpoint before
it stays.
"""

import contextlib
import shutil
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed as dist

from configs.errors import CheckpointError
from configs.load import to_stored_yaml
from configs.schema import Config
from glm.checkpoint.folder import (
    committed,
    remove,
    remove_strays,
    step_folder,
    step_of,
    unfinished,
    write_hint,
)
from glm.checkpoint.manifest import Fragment, Manifest, StoredFile
from glm.checkpoint.reader import read_manifest
from glm.checkpoint.writer import commit, write_rank_file
from train.checkpoint.retention import kept
from train.distributed import Session
from train.engine import Engine
from train.progress import Progress


@dataclass(frozen=True)
class _Written:
    """What one rank tells the others about its part of a save."""

    error: str | None
    name: str
    file: StoredFile | None
    fragments: list[Fragment]
    shapes: dict[str, list[int]]


@dataclass
class Saver:
    """Writes the checkpoints of a run.

    Args:
        checkpoints: folder that holds them.
        config: stored in each.
        data_state: description of the data (data_pipeline.dataset.GLMDataset.describe) and the skipped ranges.
        session: process groups.
        engine: whose state is saved.
        extra: stored as it is (the wandb run's id).
    """

    checkpoints: Path
    config: Config
    data_state: dict[str, Any]
    session: Session
    engine: Engine
    extra: dict[str, Any]
    last_error: str | None = None
    """Why the last save failed, on every rank; None if it did not."""
    blocked_seconds: float = 0.0
    """How long saves held up training since somebody asked."""
    _samples_of: dict[Path, int] = field(default_factory=dict)
    """Positions of the checkpoints in the folder: a large manifest is read once."""

    def save(self, progress: Progress) -> Path | None:
        """Save the state after `progress.step` steps.

        Every rank calls it, between steps.

        Returns:
            The checkpoint's folder, or None if a disk refused: the same on every rank.
        """
        started = time.perf_counter()
        try:
            return self._save(step_folder(self.checkpoints, progress.step), progress)
        finally:
            self.blocked_seconds += time.perf_counter() - started

    def take_blocked_seconds(self) -> float:
        """Time that saves took since the last call: it stands in the line of the step after them."""
        blocked, self.blocked_seconds = self.blocked_seconds, 0.0
        return blocked

    def _save(self, folder: Path, progress: Progress) -> Path | None:
        rank, group = self.session.topology.rank, self.session.control_group
        numbers = self.engine.optimizer_state.numbers()
        written = self._write(folder, self._agree_on_attempt())
        gathered: list[Any] = [None] * self.session.topology.world_size
        dist.all_gather_object(gathered, written, group=group)
        outcome = [next((other.error for other in gathered if other.error), None)]
        if rank == 0 and outcome[0] is None:
            outcome = [self._commit(folder, self._manifest(progress, numbers, gathered))]
        dist.broadcast_object_list(outcome, src=0, group=group)
        self.last_error = outcome[0]
        if self.last_error is not None:
            with contextlib.suppress(OSError):
                (folder / written.name).unlink(missing_ok=True)
            return None
        if rank == 0:
            # The checkpoint is committed: a disk that refuses to forget an old one changes nothing about that.
            with contextlib.suppress(OSError):
                self._clean(folder, progress, [other.name for other in gathered])
        return folder

    def _agree_on_attempt(self) -> str:
        """Rank 0 makes room, and invents the suffix of this attempt's files."""
        if self.session.topology.rank == 0:
            for leftover in unfinished(self.checkpoints):
                shutil.rmtree(leftover, ignore_errors=True)
        attempt = [uuid.uuid4().hex[:8]]
        dist.broadcast_object_list(attempt, src=0, group=self.session.control_group)
        return attempt[0]

    def _write(self, folder: Path, attempt: str) -> _Written:
        state = self.engine.optimizer_state
        name = f"rank{self.session.topology.rank:05d}-{attempt}.safetensors"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file, fragments = write_rank_file(folder, name, state.pieces())
        except OSError as problem:
            error = f"[{self.session.topology}] {folder / name}: {problem.strerror or problem}"
            return _Written(error, name, None, [], {})
        return _Written(None, name, file, fragments, state.shapes())

    def _commit(self, folder: Path, manifest: Manifest) -> str | None:
        """Make the checkpoint visible; returns what went wrong.

        Checkpoints of later steps belong to a history that this run has left: it was set back to before them, or
        found them damaged.
        """
        try:
            later = [
                other for other in committed(self.checkpoints) if step_of(other) > manifest.step
            ]
            commit(folder, manifest, superseded=later)
        except OSError as problem:
            return f"{folder}: {problem.strerror or problem}"
        except CheckpointError as problem:
            return str(problem)
        write_hint(folder)
        return None

    def _manifest(
        self, progress: Progress, numbers: dict[str, Any], gathered: list[_Written]
    ) -> Manifest:
        topology = self.session.topology
        return Manifest(
            step=progress.step,
            progress=progress.to_dict(),
            data_state=self.data_state,
            config=to_stored_yaml(self.config),
            optimizer=numbers,
            tensors={name: shape for rank in gathered for name, shape in rank.shapes.items()},
            files={rank.name: rank.file for rank in gathered if rank.file is not None},
            fragments=[part for rank in gathered for part in rank.fragments],
            layout={"tp": topology.tp, "pp": topology.pp, "dp": topology.dp},
            extra=self.extra,
        )

    def _clean(self, newest: Path, progress: Progress, named: list[str]) -> None:
        """Delete what retention does not keep; the newest is committed by now, and nothing here can undo that."""
        self._samples_of[newest] = progress.samples_seen
        settings = self.config.checkpoint
        samples_of = {folder: self._samples(folder) for folder in committed(self.checkpoints)}
        keep = kept(samples_of, settings.keep_last, settings.keep_every_samples)
        remove(set(samples_of) - keep)
        remove(unfinished(self.checkpoints))
        remove_strays(newest, named)

    def _samples(self, folder: Path) -> int:
        if folder not in self._samples_of:
            try:
                self._samples_of[folder] = read_manifest(folder).progress["samples_seen"]
            except (CheckpointError, KeyError):
                self._samples_of[folder] = 0
        return self._samples_of[folder]
