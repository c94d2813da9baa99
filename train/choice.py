"""Which checkpoint a start continues from, agreed on by all ranks, and when a run must not begin at sample 0 instead.

A run that has had a checkpoint never begins again by itself, and never takes another run's unless asked to.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from configs.checkpoint_yaml import from_checkpoint_yaml
from configs.errors import CheckpointError, ConfigError, DistributedError, RunFolderError, UserError
from configs.run_checkpoints import committed, is_checkpoint, step_of
from configs.run_paths import METRICS, ROLLED_BACK, WANDB, RunPaths
from configs.schema import Config
from glm.checkpoint.manifest import Manifest
from glm.checkpoint.reader import read_manifest
from train import identity as identities
from train.checkpoint import (
    check_same_model,
    claim,
    copy_folder,
    newest_good_together,
    places_of,
    verify_together,
)
from train.early import check_resume
from train.generations import History
from train.going_back import go_back
from train.identity import Identity
from train.metrics_file import StoredMetrics, checksum_in
from train.run_folder import RunFolder
from train.session import Session
from train.start import describe_changes
from train.trackers import Trackers
from train.world import node_name

T = TypeVar("T")


def decided_by_rank_0(session: Session, decide: Callable[[], T]) -> T:
    """Let rank 0 decide: every rank gets its answer, or raises its error.

    Args:
        session: process groups.
        decide: called on rank 0; its answer can be pickled.
    """
    answer: list[Any] = [None, None]
    if session.topology.rank == 0:
        try:
            answer[0] = decide()
        except (UserError, DistributedError, OSError) as error:
            answer[1] = error
    dist.broadcast_object_list(answer, src=0, group=session.control_group)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]


def agree_on_numbers(config: Config, device: torch.device, session: Session) -> None:
    """Check that all ranks use the same device type and precision, because each rank resolves `auto` by itself.

    Args:
        config: configuration of the run; `precision` is already resolved.
        device: device of this rank.
        session: process groups.

    Raises:
        ConfigError: on every rank, naming a rank and a host that differ from rank 0.
    """
    own = (device.type, config.precision.value, node_name())
    everyone = [own] * session.topology.world_size
    dist.all_gather_object(everyone, own, group=session.control_group)
    first = everyone[0]
    for rank, other in enumerate(everyone):
        if other[:2] != first[:2]:
            raise ConfigError(
                [
                    f"Ranks would compute differently: rank 0 on {first[2]} has device={first[0]} precision={first[1]}, rank "
                    f"{rank} on {other[2]} has device={other[0]} precision={other[1]}. Type what all of them support, such "
                    "as precision=fp16 or device=cpu, or leave that host out."
                ]
            )


def claim_copy(
    folder: RunFolder, config: Config, identity: Identity | None, session: Session
) -> None:
    """Refuse a folder for second copies that belongs to another run; every rank calls it.

    A disk that cannot be used at all is not refused: the run's own checkpoints do not need it, and each save reports the
    error.

    Raises:
        RunFolderError: on every rank, naming the other run.
    """
    copy = copy_folder(config)

    def refusal() -> str | None:
        try:
            return (
                None
                if copy is None or identity is None
                else claim(copy, folder.path, identity.run_id)
            )
        except OSError:
            return None

    found = decided_by_rank_0(session, refusal)
    if found is not None:
        raise RunFolderError(found)


def begin_at_0(folder: RunFolder, identity: Identity | None) -> Identity | None:
    """Begin a run at 0. If it has trained, as `checkpoint.resume=never` asks, its earlier records are kept aside.

    Returns:
        The identity of the run that begins: another one if it has trained before.

    Raises:
        OSError: the files cannot be moved.
    """
    if identity is None or not identity.has_checkpoint:
        return identity
    kept = folder.rolled_back
    kept.mkdir(exist_ok=True)
    number = 1
    while any(kept.glob(f"*_{number}*")):
        number += 1
    # wandb's records with their id: what follows is another run in wandb, too.
    for path, name in (
        (folder.metrics, f"{folder.metrics.stem}_{number}{folder.metrics.suffix}"),
        (
            folder.interventions,
            f"{folder.interventions.stem}_{number}{folder.interventions.suffix}",
        ),
        (folder.wandb, f"{WANDB}_{number}"),
    ):
        if path.exists():
            os.rename(path, kept / name)
    return identities.begin_anew(folder.path)


def choose_checkpoint(
    folder: RunFolder,
    config: Config,
    stored: Config | None,
    session: Session,
    trackers: Trackers,
    identity: Identity | None,
) -> tuple[Path, Manifest] | None:
    """Find the checkpoint to continue from, verified by all ranks together; None for a new run.

    A run goes back to the path in `checkpoint.resume` only once: the same command, given again, continues from what was
    saved since.

    Args:
        folder: the run folder.
        config: configuration of the run; a run folder in `checkpoint.resume` is replaced by its newest checkpoint.
        stored: configuration of the previous start.
        session: process groups.
        trackers: log which checkpoints are skipped.
        identity: identity of the run, on rank 0.

    Raises:
        CheckpointError: the requested checkpoint cannot be used, all are damaged, or it is of another model.
        RunFolderError: the run has trained, and its checkpoints are gone.
    """
    search = _Search(folder, config, session, trackers, identity)
    asked = config.checkpoint.resume
    if asked in ("auto", "never") or os.path.realpath(asked) == os.path.realpath(folder.path):
        found = search.newest(after_step=-1)
    else:
        found = _asked(search, stored)
    if found is not None:
        path, manifest = found
        check_same_model(config, from_checkpoint_yaml(manifest.config), path)
    if found is not None and identity is not None:
        identities.record_checkpoint(folder.path, identity.run_id)
    return found


def _asked(search: "_Search", stored: Config | None) -> tuple[Path, Manifest]:
    """The checkpoint that `checkpoint.resume` names, or what was saved since the run went back to it."""
    config, trackers = search.config, search.trackers
    path = _named(search, stored)
    went_back = _went_back_before(stored, config, search.session)
    manifest = verify_together(path, search.session)
    if went_back:
        try:
            since = search.newest(after_step=manifest.step)
        except CheckpointError as error:
            trackers.log(f"{error} Going back to {path} again.")
            since = None
        if since is not None:
            trackers.log(
                f"This command has already gone back to {path}: continuing from what was saved since."
            )
            return since
    if search.is_foreign(manifest):
        trackers.log(
            f"{path} belongs to another run ({manifest.run_id}): this run continues from it, as checkpoint.resume asks."
        )
    return path, manifest


def _named(search: "_Search", stored: Config | None) -> Path:
    """The checkpoint folder that `checkpoint.resume` means; of a run folder the newest whole one.

    Raises:
        CheckpointError: there is none.
    """
    config = search.config
    path = Path(config.checkpoint.resume)
    checkpoints = RunPaths(path).checkpoints
    if is_checkpoint(path) or not checkpoints.is_dir():
        check_resume(config)
        return path
    before = None if stored is None else Path(stored.checkpoint.resume)
    is_known = before is not None and before.parent == checkpoints and before.is_dir()
    # That run may have trained further: the command still means the checkpoint that it found there the first time.
    found = decided_by_rank_0(search.session, lambda: before if is_known else None)
    if found is None:
        found = newest_good_together([checkpoints], search.session, search.trackers.log)
    if found is None:
        raise CheckpointError(f"checkpoint.resume ({path}) is a run folder without a checkpoint.")
    config.checkpoint.resume = str(found)
    return found


def _went_back_before(stored: Config | None, config: Config, session: Session) -> bool:
    """True if the previous attempt was started by the same command; rank 0 decides, as other nodes may see stale files."""
    return decided_by_rank_0(
        session,
        lambda: (
            stored is not None
            and stored.checkpoint.resume == config.checkpoint.resume
            and not describe_changes(stored, config)
        ),
    )


class _Search:
    """Looks through the places that a run's checkpoints may be in."""

    def __init__(
        self,
        folder: RunFolder,
        config: Config,
        session: Session,
        trackers: Trackers,
        identity: Identity | None,
    ) -> None:
        self.config = config
        self.session = session
        self.trackers = trackers
        self._folder = folder
        self._identity = identity

    def is_foreign(self, manifest: Manifest) -> bool:
        """True if another run wrote it; False if it carries no identity, and on ranks other than 0."""
        own = None if self._identity is None else self._identity.run_id
        return own is not None and manifest.run_id not in (None, own)

    def newest(self, after_step: int) -> tuple[Path, Manifest] | None:
        """The newest good checkpoint of the run's history after step `after_step`.

        Raises:
            CheckpointError: all are damaged.
            RunFolderError: metrics.jsonl lacks lines before each of them, or the run has lost its checkpoints.
            DistributedError: there may be one in a second copy that cannot be read.
        """
        places = [place.checkpoints for place in places_of(self.config, self._folder.checkpoints)]
        own, *copies = places
        readable = [copy for copy in copies if self._is_readable(copy)]
        history = History.read(self._folder.path)
        is_main = self.session.topology.rank == 0
        metrics = StoredMetrics(self._folder.metrics) if is_main else None
        skipped: list[Manifest] = []
        foreign: list[Path] = []

        def admits(path: Path, manifest: Manifest) -> bool:
            step = step_of(path)
            if step <= after_step:
                return False
            if self.is_foreign(manifest):
                foreign.append(path)
                self.trackers.log(
                    f"{path} belongs to another run ({manifest.run_id}): it is skipped, and left as it is."
                )
                return False
            if not history.admits(manifest.generation, step):
                self.trackers.log(
                    f"{path} belongs to a history that the run has left: it is skipped."
                )
                return False
            assert metrics is not None, "called on rank 0 only"
            fault = metrics.fault_before(step, checksum_in(manifest.extra))
            if fault is not None:
                self.trackers.log(f"{path} is skipped: {fault}.")
                skipped.append(manifest)
            return fault is None

        path = newest_good_together([own, *readable], self.session, self.trackers.log, admits)
        if after_step < 0:
            decided_by_rank_0(
                self.session,
                lambda: self._check_history(metrics, skipped, path),
            )
            decided_by_rank_0(
                self.session,
                lambda: self._check_beginning(
                    path,
                    foreign,
                    len(readable) < len(copies) and bool(history.continues_after),
                ),
            )
        return None if path is None else (path, read_manifest(path))

    def _check_history(
        self, metrics: StoredMetrics | None, skipped: list[Manifest], found: Path | None
    ) -> None:
        """Raise if metrics.jsonl lacks lines before all checkpoints, or before too many; called on rank 0."""
        if metrics is None or not skipped or self.config.checkpoint.resume == "never":
            return
        if found is None:
            first = min(skipped, key=lambda manifest: manifest.step)
            metrics.up_to(first.step, checksum_in(first.extra))  # says what is missing
            return
        chosen = read_manifest(found)
        go_back(self._folder, self.config, metrics, skipped, chosen, self.trackers)

    def _check_beginning(
        self, found: Path | None, foreign: list[Path], may_have_copy: bool
    ) -> None:
        """Raise if a run that has trained would begin at 0 by itself; called on rank 0."""
        folder, own = self._folder, self._folder.checkpoints
        is_never = self.config.checkpoint.resume == "never"
        if found is not None:
            if is_never:
                raise RunFolderError(
                    f"{folder.path} has checkpoints ({found}) and checkpoint.resume is never. Nothing was deleted. Start "
                    "another run with run.name=NAME, or continue this one with checkpoint.resume=auto."
                )
            return
        if is_never:
            return
        if may_have_copy:
            raise DistributedError(
                f"{own} has no checkpoint, and whether a second copy has one cannot be checked now. Make "
                "checkpoint.copy_to readable again, or begin again without it: checkpoint.copy_to=null checkpoint.resume=never."
            )
        again = (
            "Nothing was deleted. To begin at sample 0, start another run with run.name=NAME, or type "
            f"checkpoint.resume=never to do so in this folder: {METRICS} is then kept in {ROLLED_BACK}."
        )
        if foreign:
            raise RunFolderError(
                f"{own} has only checkpoints of another run, such as {foreign[0]}. Restore this run's own, or continue from "
                f"one of them on purpose with checkpoint.resume={foreign[0]}. {again}"
            )
        if self._identity is not None and self._identity.has_checkpoint:
            raise RunFolderError(
                f"{folder.path} has trained, but its checkpoints are gone: {own} holds none. Restore them. {again}"
            )

    def _is_readable(self, copy: Path) -> bool:
        """False, with a log line, if a second copy cannot be read: that must not keep a run from its own checkpoints."""
        try:
            committed(copy)
        except OSError as error:
            self.trackers.log(f"{copy} cannot be read: {error.strerror}. It is skipped.")
            return False
        return True
