"""A place for checkpoints - the run folder, or the second copy - as the committing rank looks after it.

Only what the run has written is replaced or deleted there: a checkpoint of another run, a folder or a file of the
user's stays, whatever its name (glm/checkpoint/ownership.py).
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from configs import derive
from configs.errors import CheckpointError, UserError
from configs.run_checkpoints import committed, step_of, unfinished
from configs.run_paths import MANIFEST, RunPaths
from configs.schema import Config
from glm.checkpoint.folder import remove, strays, write_hint
from glm.checkpoint.manifest import Manifest
from glm.checkpoint.ownership import left_by, mark_of, written_by
from glm.checkpoint.reader import read_manifest
from glm.checkpoint.writer import commit
from train.checkpoint.second_copy import carry, claim
from train.identity import record_checkpoint

Fence = Callable[[], None]
"""Raises DistributedError if a later attempt of the run has begun: this one may not change a checkpoint any more."""


def no_fence() -> None:
    """For a run that nobody else can take over."""


Sync = Callable[[], None]
"""Brings to the disk what a checkpoint relies on beside its own files; raises OSError if that refuses."""


def nothing_to_sync() -> None:
    """For a run without metrics."""


@dataclass
class CheckpointStore:
    """A folder of checkpoints and its rules of retention."""

    checkpoints: Path
    keep_last: int
    keep_every_samples: int | None
    fence: Fence = no_fence
    run_folder: Path | None = None
    """For a second copy: the run whose small files are copied along, so that the copy is a run folder as well."""
    sync: Sync = nothing_to_sync
    run_id: str | None = None
    """Identity of the run; None: it has none, and whatever has the names of its files is its own."""
    _known: dict[tuple[Path, int, int], tuple[bool, int]] = field(default_factory=dict)
    """Is it the run's own, and its position, by folder and version of its manifest: a large one is read once."""

    @property
    def mark(self) -> str:
        """What stands in the names of the run's files."""
        return mark_of(self.run_id)

    def make_room(self, folder: Path) -> str | None:
        """Delete what killed saves left behind, and ask whether a checkpoint may be written.

        Args:
            folder: of the checkpoint.

        Returns:
            Why it may not: something that is not this run's is in the way; None: it may.

        Raises:
            DistributedError: from the fence.
        """
        if self.run_folder is not None and self.run_id is not None:
            copy = self.checkpoints.parent
            try:
                self.fence()
                refusal = claim(copy, self.run_folder, self.run_id)
            except OSError as error:
                refusal = f"{error.filename or copy}: {error.strerror}"
            if refusal is not None:
                return refusal
        with contextlib.suppress(OSError):  # if the place is gone, the save will say so
            if (folder / MANIFEST).exists() and not written_by(folder, self.mark):
                return f"{folder} holds a checkpoint of another run. Move it elsewhere: nothing of it was changed"
            self._remove(self._leftovers())
        return None

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
            carry(self.run_folder, self.checkpoints.parent, folder)
        later = [
            other
            for other in committed(self.checkpoints)
            if step_of(other) > manifest.step and self._look_at(other)[0]
        ]
        commit(folder, manifest, superseded=later, fence=self.fence)
        # From here on it is committed, and no error may say otherwise.
        if self.run_id is not None:
            with contextlib.suppress(OSError, UserError):
                record_checkpoint(self.run_folder or self.checkpoints.parent, self.run_id)

    def clean(self, newest: Path, manifest: Manifest, healthy_step: int | None) -> None:
        """Point the hint at the newest, and delete what retention does not keep.

        The newest is committed by now, and nothing here can undo that.

        Raises:
            DistributedError: from the fence.
        """
        # A disk that refuses to forget an old checkpoint, or to tell whether a later attempt has begun, changes nothing
        # about the new one.
        with contextlib.suppress(OSError):
            self.fence()
            write_hint(newest)
            found = {folder: self._look_at(folder) for folder in committed(self.checkpoints)}
            samples_of = {folder: samples for folder, (is_own, samples) in found.items() if is_own}
            keep = kept(samples_of, self.keep_last, self.keep_every_samples, healthy_step)
            leftovers = self._leftovers()
            beside = strays(newest, manifest.files, self.mark)
            self._remove([*sorted(set(samples_of) - keep), *leftovers])
            self.fence()
            for path in beside:
                path.unlink(missing_ok=True)

    def _remove(self, listed: Iterable[Path]) -> None:
        """Delete folders that were listed before.

        Deleting takes long and may be held up, by a network that is cut and healed. The question comes after the list
        and before each folder: what a later attempt has begun by now is not in the list, or the answer is no.
        """
        for folder in listed:
            self.fence()
            with contextlib.suppress(OSError):  # the others can be deleted all the same
                remove(folder, self.mark)

    def _leftovers(self) -> list[Path]:
        return [folder for folder in unfinished(self.checkpoints) if left_by(folder, self.mark)]

    def _look_at(self, folder: Path) -> tuple[bool, int]:
        """Is a committed checkpoint this run's own, and its position; 0 if that cannot be read."""
        status = (folder / MANIFEST).stat()
        version = (folder, status.st_ino, status.st_mtime_ns)
        if version not in self._known:
            try:
                samples = read_manifest(folder).progress["samples_seen"]
            except (CheckpointError, KeyError):
                samples = 0
            self._known[version] = (written_by(folder, self.mark), samples)
        return self._known[version]


def places_of(
    config: Config,
    checkpoints: Path,
    fence: Fence = no_fence,
    sync: Sync = nothing_to_sync,
    run_id: str | None = None,
) -> list[CheckpointStore]:
    """Where a run's checkpoints go: its own folder, then the second copy if one is asked for."""
    settings = config.checkpoint
    keep_last, keep_every_samples = settings.keep_last, settings.keep_every_samples
    own = CheckpointStore(checkpoints, keep_last, keep_every_samples, fence, None, sync, run_id)
    copy = copy_folder(config)
    if copy is None:
        return [own]
    keep_last = settings.copy_keep_last
    run_folder, copies = checkpoints.parent, RunPaths(copy).checkpoints
    return [own, CheckpointStore(copies, keep_last, None, fence, run_folder, sync, run_id)]


def copy_folder(config: Config) -> Path | None:
    """The second copy of the run; None: it has none."""
    copy_to = config.checkpoint.copy_to
    return None if copy_to is None else Path(copy_to) / derive.run_name(config)


def kept(
    samples_of: Mapping[Path, int],
    keep_last: int,
    keep_every_samples: int | None,
    healthy_step: int | None = None,
) -> set[Path]:
    """Choose among committed checkpoints.

    Args:
        samples_of: samples seen, by folder.
        keep_last: how many of the newest stay; at least one does.
        keep_every_samples: the first checkpoint at or after each multiple of it stays for ever; None: no such rule.
        healthy_step: the checkpoint that a diverged run can go back to stays; None: none is known.

    Returns:
        The folders that stay.
    """
    oldest_first = sorted(samples_of, key=step_of)
    keep = set(oldest_first[-max(keep_last, 1) :])
    keep.update(folder for folder in oldest_first if step_of(folder) == healthy_step)
    if keep_every_samples is not None:
        # The first of an interval is never deleted, so the first that is still there is it.
        reached = 0
        for folder in oldest_first:
            interval = samples_of[folder] // keep_every_samples
            if interval > reached:
                reached = interval
                keep.add(folder)
    return keep
