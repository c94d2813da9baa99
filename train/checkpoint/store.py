"""A store of checkpoints, in the run folder or the second copy, as the committing rank manages it.

Only what the run itself has written is replaced or deleted there. Another run's checkpoint and the user's own files and
folders stay, whatever their names (glm/checkpoint/ownership.py).
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
from glm.checkpoint.folder import hide, remove, strays, write_hint
from glm.checkpoint.manifest import Manifest
from glm.checkpoint.ownership import left_by, mark_of, written_by
from glm.checkpoint.reader import read_manifest
from glm.checkpoint.writer import commit
from train.checkpoint.second_copy import carry, claim
from train.identity import record_checkpoint

Fence = Callable[[], None]
"""Raises DistributedError if a later attempt of the run has begun, so that this one must not change checkpoints."""


def no_fence() -> None:
    """A fence that never raises, for a run of which there is only one attempt."""


Sync = Callable[[], None]
"""Writes files to disk that a checkpoint relies on beside its own; raises OSError if that fails."""


def nothing_to_sync() -> None:
    """A sync that does nothing, for a run without metrics."""


@dataclass(frozen=True)
class Pins:
    """Checkpoints that are kept because a run may have to go back to them."""

    healthy_step: int | None = None
    """Step of the newest one after which training is known to have gone well; None: unknown."""
    before_steps: tuple[int, ...] = ()
    """Before each of these steps the newest one is kept, or the oldest if none is before it."""


NO_PINS = Pins()


@dataclass
class CheckpointStore:
    """A folder of checkpoints and its rules of retention."""

    checkpoints: Path
    keep_last: int
    keep_every_samples: int | None
    fence: Fence = no_fence
    run_folder: Path | None = None
    """For a second copy: the run folder whose small files are copied too, so that the copy is a run folder as well."""
    sync: Sync = nothing_to_sync
    run_id: str | None = None
    """Identity of the run; None if it has none: then every file with a matching name counts as its own."""
    _known: dict[tuple[Path, int, int], tuple[bool, int]] = field(default_factory=dict)
    """Cache of `_look_at`, by folder and version of the manifest: a large manifest is read only once."""

    @property
    def mark(self) -> str:
        """The mark of the run in the names of its files."""
        return mark_of(self.run_id)

    def make_room(self, folder: Path) -> str | None:
        """Delete what killed saves left behind, and check whether a checkpoint may be written.

        Args:
            folder: folder of the checkpoint.

        Returns:
            Why it may not be written, because something there is not this run's; None if it may.

        Raises:
            DistributedError: raised by the fence.
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
        with contextlib.suppress(OSError):  # if the folder is gone, the save reports it
            if (folder / MANIFEST).exists() and not written_by(folder, self.mark):
                return f"{folder} holds a checkpoint of another run. Move it elsewhere: it was not changed"
            self._remove(self._leftovers())
        return None

    def commit(self, folder: Path, manifest: Manifest) -> None:
        """Make a checkpoint visible, after syncing the lines of metrics.jsonl that a resume from it requires.

        Checkpoints of later steps are removed from view. They belong to a history that the run has left, because it
        went back to an earlier step or found them damaged.

        Raises:
            CheckpointError: the checkpoint is not complete.
            OSError: the file system failed.
            DistributedError: raised by the fence.
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
        # From here on the checkpoint is committed, and no error may be reported as a failed save.
        if self.run_id is not None:
            with contextlib.suppress(OSError, UserError):
                record_checkpoint(self.run_folder or self.checkpoints.parent, self.run_id)

    def leave(self, step: int) -> None:
        """Set aside what was saved after a step, because the run goes back to that step.

        The folders lose their manifests at once: nobody takes them for the run's newest checkpoint, and no file of them for
        one of the same step that is saved again. The next save deletes them.

        Raises:
            DistributedError: raised by the fence.
        """
        with contextlib.suppress(
            OSError
        ):  # a second copy: the history says as well what belongs to it
            left = [path for path in committed(self.checkpoints) if step_of(path) > step]
            left = [path for path in left if self._look_at(path)[0]]
            self.fence()
            hide(left)
            if kept := committed(self.checkpoints):
                write_hint(kept[0])

    def clean(self, newest: Path, manifest: Manifest, pins: Pins) -> None:
        """Point the hint at the newest checkpoint, and delete those that retention does not keep.

        The newest checkpoint is committed already, and nothing here can undo that.

        Raises:
            DistributedError: raised by the fence.
        """
        # An error of the file system while deleting, or while the fence looks for a later attempt, does not affect the
        # new checkpoint.
        with contextlib.suppress(OSError):
            self.fence()
            write_hint(newest)
            found = {folder: self._look_at(folder) for folder in committed(self.checkpoints)}
            samples_of = {folder: samples for folder, (is_own, samples) in found.items() if is_own}
            keep = kept(samples_of, self.keep_last, self.keep_every_samples, pins)
            leftovers = self._leftovers()
            beside = strays(newest, manifest.files, self.mark)
            self._remove([*sorted(set(samples_of) - keep), *leftovers])
            self.fence()
            for path in beside:
                path.unlink(missing_ok=True)

    def _remove(self, listed: Iterable[Path]) -> None:
        """Delete folders that were listed earlier.

        Deleting takes long, and a network failure can delay it further. So the fence is asked after the folders are
        listed and before each one is deleted: a folder that a later attempt has begun is either not in the list, or the
        fence raises first.
        """
        for folder in listed:
            self.fence()
            with contextlib.suppress(OSError):  # the others can be deleted all the same
                remove(folder, self.mark)

    def _leftovers(self) -> list[Path]:
        return [folder for folder in unfinished(self.checkpoints) if left_by(folder, self.mark)]

    def _look_at(self, folder: Path) -> tuple[bool, int]:
        """Whether a committed checkpoint is this run's own, and its samples seen (0 if that cannot be read)."""
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
    """The stores of a run's checkpoints: its own folder, then the second copy if one is configured."""
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
    """Folder of the run's second copy; None if it has none."""
    copy_to = config.checkpoint.copy_to
    return None if copy_to is None else Path(copy_to) / derive.run_name(config)


def kept(
    samples_of: Mapping[Path, int],
    keep_last: int,
    keep_every_samples: int | None,
    pins: Pins = NO_PINS,
) -> set[Path]:
    """Choose which committed checkpoints to keep.

    Args:
        samples_of: samples seen, by folder.
        keep_last: how many of the newest to keep; at least one is kept.
        keep_every_samples: keep the first checkpoint at or after each multiple of this number for ever; None: off.
        pins: checkpoints that a diverged run can go back to.

    Returns:
        The folders to keep.
    """
    oldest_first = sorted(samples_of, key=step_of)
    keep = set(oldest_first[-max(keep_last, 1) :])
    keep.update(folder for folder in oldest_first if step_of(folder) == pins.healthy_step)
    for step in pins.before_steps:
        before = [each for each in oldest_first if step_of(each) < step]
        keep.update(before[-1:] or oldest_first[:1])
    if keep_every_samples is not None:
        # The first checkpoint of an interval is never deleted, so the first one still there is the first of all.
        reached = 0
        for folder in oldest_first:
            interval = samples_of[folder] // keep_every_samples
            if interval > reached:
                reached = interval
                keep.add(folder)
    return keep
