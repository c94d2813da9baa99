"""A place for checkpoints - the run folder, or the second copy - as the committing rank looks after it."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from configs import derive
from configs.errors import CheckpointError
from configs.schema import Config
from glm.checkpoint.disk import sync_to_disk
from glm.checkpoint.folder import (
    committed,
    remove,
    step_of,
    strays,
    unfinished,
    write_hint,
)
from glm.checkpoint.manifest import Manifest
from glm.checkpoint.reader import read_manifest
from glm.checkpoint.writer import commit
from train.checkpoint.retention import kept

_CARRIED = ("config.yaml", "overrides.txt", "source.txt", "metrics.jsonl", "events.jsonl")

Fence = Callable[[], None]
"""Raises DistributedError if a later life of the run has begun: this one may not change a checkpoint any more."""


def no_fence() -> None:
    """For a run that nobody else can take over."""


Sync = Callable[[], None]
"""Brings to the disk what a checkpoint relies on beside its own files; raises OSError if that refuses."""


def nothing_to_sync() -> None:
    """For a run without metrics."""


@dataclass
class Place:
    """A folder of checkpoints and its rules of retention."""

    checkpoints: Path
    keep_last: int
    keep_every_samples: int | None
    fence: Fence = no_fence
    run_folder: Path | None = None
    """For a second copy: the run whose small files are copied along, so that the copy is a run folder as well."""
    sync: Sync = nothing_to_sync
    _samples_of: dict[Path, int] = field(default_factory=dict)
    """Positions of the checkpoints in the folder: a large manifest is read once."""

    def make_room(self) -> None:
        """Delete what killed saves left behind.

        Raises:
            DistributedError: from the fence.
        """
        with contextlib.suppress(OSError):  # if the place is gone, the save will say so
            self._remove(unfinished(self.checkpoints))

    def commit(self, folder: Path, manifest: Manifest) -> None:
        """Make a checkpoint visible, after the lines of metrics.jsonl without which a start would refuse it.

        Checkpoints of later steps belong to a history that this run has left: it was set back to before them, or
        found them damaged.

        Raises:
            CheckpointError: it is not whole.
            OSError: the disk refused.
            DistributedError: from the fence.
        """
        self.sync()
        if self.run_folder is not None:
            self.fence()
            _carry(self.run_folder, self.checkpoints.parent, folder)
        later = [other for other in committed(self.checkpoints) if step_of(other) > manifest.step]
        commit(folder, manifest, superseded=later, fence=self.fence)

    def clean(self, newest: Path, manifest: Manifest, healthy_step: int | None) -> None:
        """Point the hint at the newest, and delete what retention does not keep.

        The newest is committed by now, and nothing here can undo that.

        Raises:
            DistributedError: from the fence.
        """
        self._samples_of[newest] = manifest.progress["samples_seen"]
        # A disk that refuses to forget an old checkpoint, or to tell whether a later life has begun, changes nothing
        # about the new one.
        with contextlib.suppress(OSError):
            self.fence()
            write_hint(newest)
            samples_of = {folder: self._samples(folder) for folder in committed(self.checkpoints)}
            keep = kept(samples_of, self.keep_last, self.keep_every_samples, healthy_step)
            leftovers = unfinished(self.checkpoints)
            beside = strays(newest, manifest.files)
            self._remove([*sorted(set(samples_of) - keep), *leftovers])
            self.fence()
            for path in beside:
                path.unlink(missing_ok=True)

    def _remove(self, listed: Iterable[Path]) -> None:
        """Delete folders that were listed before.

        Deleting takes long and may be held up, by a network that is cut and healed. The question comes after the list
        and before each folder: what a later life has begun by now is not in the list, or the answer is no.
        """
        for folder in listed:
            self.fence()
            remove([folder])

    def _samples(self, folder: Path) -> int:
        if folder not in self._samples_of:
            try:
                self._samples_of[folder] = read_manifest(folder).progress["samples_seen"]
            except (CheckpointError, KeyError):
                self._samples_of[folder] = 0
        return self._samples_of[folder]


def places_of(
    config: Config,
    checkpoints: Path,
    fence: Fence = no_fence,
    sync: Sync = nothing_to_sync,
) -> list[Place]:
    """Where a run's checkpoints go: its own folder, then the second copy if one is asked for."""
    settings = config.checkpoint
    keep_last, keep_every_samples = settings.keep_last, settings.keep_every_samples
    places = [Place(checkpoints, keep_last, keep_every_samples, fence, sync=sync)]
    if settings.copy_to is not None:
        copies = Path(settings.copy_to) / derive.run_name(config) / "checkpoints"
        run_folder = checkpoints.parent
        places.append(Place(copies, settings.copy_keep_last, None, fence, run_folder, sync))
    return places


def _carry(run_folder: Path, copy: Path, folder: Path) -> None:
    """Copy what a run needs beside a checkpoint to be continued, reported and used for generation.

    Args:
        run_folder: of the run.
        copy: its second copy.
        folder: of the checkpoint that is about to be committed there. Files are written into it first, so that what is
            left of a copy that was killed is cleaned away like any other leftover.
    """
    attempt = uuid.uuid4().hex[:8]  # another life's must not be mistaken for it
    for name in _CARRIED:
        if (run_folder / name).is_file():
            partial = folder / f"{attempt}-{name}.part"
            shutil.copyfile(run_folder / name, partial)
            sync_to_disk(partial)
            os.replace(partial, copy / name)
    tokenizer = run_folder / "tokenizer"
    if tokenizer.is_dir() and not (copy / "tokenizer").exists():
        shutil.copytree(tokenizer, copy / "tokenizer")
