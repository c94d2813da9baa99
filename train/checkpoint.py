"""Saving and loading a run's state: every rank writes what it owns, rank 0 commits.

Synchronous in this version: training waits for the disk. A rank's failure (a full disk) is agreed on by all; the save
is given up, training goes on, and the checkpoint before it stays.
"""

import shutil
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from configs import derive
from configs.errors import CheckpointError
from configs.load import flatten, from_yaml, to_yaml
from configs.schema import Config
from glm.checkpoint.folder import (
    Reader,
    clean,
    commit,
    committed,
    read_manifest,
    step_folder,
    verify,
    write_rank_file,
)
from glm.checkpoint.manifest import Fragment, Manifest, StoredFile, merge
from train.distributed import Session
from train.engine import Engine
from train.progress import Progress
from train.zero import OptimizerState

# Keys of model.* that may change without making it another model.
_FREE_MODEL_KEYS = {"model.hidden_dropout", "model.attention_dropout", "model.attention"}


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
    """Why the last save failed, on rank 0; None if it did not."""
    blocked_seconds: float = 0.0
    """How long saves held up training since somebody asked."""

    def save(self, progress: Progress) -> Path | None:
        """Save the state after `progress.step` steps; returns the folder, or None if the disk refused."""
        started = time.perf_counter()
        folder = step_folder(self.checkpoints, progress.step)
        try:
            return self._save(folder, progress)
        finally:
            self.blocked_seconds += time.perf_counter() - started

    def take_blocked_seconds(self) -> float:
        """Time that saves took since the last call: it stands in the line of the step after them."""
        blocked, self.blocked_seconds = self.blocked_seconds, 0.0
        return blocked

    def _save(self, folder: Path, progress: Progress) -> Path | None:
        topology, group = self.session.topology, self.session.control_group
        state = self.engine.optimizer_state
        pieces, shapes, numbers = state.pieces(), state.shapes(), state.numbers()
        attempt = self._agree_on_attempt()
        entry: tuple[StoredFile, list[Fragment]] | None = None
        error = None
        name = f"rank{topology.rank:05d}-{attempt}.safetensors"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            entry = write_rank_file(folder, name, pieces)
        except OSError as problem:
            error = f"{folder / name}: {problem.strerror}"
        gathered: list[Any] = [None] * topology.world_size
        dist.all_gather_object(gathered, (error, name, entry, shapes), group=group)
        errors = [entry_error for entry_error, *_ in gathered if entry_error]
        if not errors and topology.rank == 0:
            try:
                commit(folder, self._manifest(progress, numbers, gathered))
                self._retain(folder)
            except OSError as problem:
                errors = [f"{folder}: {problem.strerror}"]
        outcome = [errors]
        dist.broadcast_object_list(outcome, src=0, group=group)
        errors = outcome[0]
        if errors and topology.rank == 0 and folder not in committed(self.checkpoints):
            shutil.rmtree(folder, ignore_errors=True)
        self.last_error = errors[0] if errors else None
        return None if errors else folder

    def _agree_on_attempt(self) -> str:
        attempt = [uuid.uuid4().hex[:8]]
        dist.broadcast_object_list(attempt, src=0, group=self.session.control_group)
        return attempt[0]

    def _manifest(
        self, progress: Progress, numbers: dict[str, Any], gathered: list[Any]
    ) -> Manifest:
        topology = self.session.topology
        tensors: dict[str, list[int]] = {}
        for *_, shapes in gathered:
            tensors.update(shapes)
        return Manifest(
            step=progress.step,
            progress=progress.to_dict(),
            data_state=self.data_state,
            config=to_yaml(self.config),
            optimizer=numbers,
            tensors=tensors,
            files={name: entry[0] for _, name, entry, _ in gathered},
            fragments=merge({rank: entry[1] for rank, (_, _, entry, _) in enumerate(gathered)}),
            layout={"tp": topology.tp, "pp": topology.pp, "dp": topology.dp},
            extra=self.extra,
        )

    def _retain(self, newest: Path) -> None:
        """Delete what retention does not keep; the newest is committed by now."""
        settings = self.config.checkpoint
        folders = committed(self.checkpoints)
        keep = {newest, *folders[: settings.keep_last]}
        if settings.keep_every_samples is not None:
            reached = 0
            for folder in reversed(folders):
                samples = read_manifest(folder).progress["samples_seen"]
                if samples // settings.keep_every_samples > reached:
                    reached = samples // settings.keep_every_samples
                    keep.add(folder)
        clean(self.checkpoints, keep)


def restore(engine: Engine, folder: Path, manifest: Manifest) -> Progress:
    """Put a checkpoint's state into the engine; it may come from any layout."""
    engine.optimizer_state.load(Reader(folder, manifest))
    return Progress.from_dict(manifest.progress)


def initialise_from(engine: Engine, folder: Path, config: Config) -> None:
    """Start a new run from a checkpoint's weights.

    Raises:
        CheckpointError: it is damaged, or of another model.
    """
    manifest = verify(folder)
    check_same_model(config, from_yaml(manifest.config), folder)
    engine.optimizer_state.load_weights(Reader(folder, manifest))


def check_same_model(config: Config, stored: Config, where: Path) -> None:
    """Refuse the state of another model.

    Raises:
        CheckpointError: naming each key that differs.
    """
    now, then = flatten(config), flatten(stored)
    differing = [
        f"{key} is {then.get(key)} there and {now[key]} now"
        for key in now
        if key.startswith("model.") and key not in _FREE_MODEL_KEYS and now[key] != then.get(key)
    ]
    if differing:
        raise CheckpointError(
            f"{where} holds another model: {'; '.join(differing)}. Start another run with run.name=NAME, or use the "
            f"model of {derive.run_dir(stored)}."
        )
