"""Resuming a run: all ranks choose its checkpoint together, and load the state into the engine.

A process can do so more than once: between two steps a run may be set back to one of its checkpoints.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from configs.checkpoint_yaml import from_checkpoint_yaml
from configs.interventions import Interventions, read_interventions
from glm.checkpoint.manifest import Manifest
from glm.numerics import NUMERICS, numerics_of
from train import choice, identity, start
from train.checkpoint import (
    become_a_run,
    check_copy_is_shared,
    initialise_from,
    restore,
    verify_together,
)
from train.counted import settle
from train.earlier_schedules import continued
from train.engine import Engine, build_engine
from train.identity import Identity
from train.metrics_file import checksum_in
from train.prepared import Prepared
from train.progress import Progress
from train.run_folder import STARTING
from train.schedule_changes import schedule_changes
from train.session import Session
from train.stability.rollback import found_interventions, record
from train.trackers import Trackers


@dataclass(frozen=True)
class Resumed:
    """A run whose engine holds the state to continue from."""

    engine: Engine
    progress: Progress
    checkpoint: tuple[Path, Manifest] | None
    """What it continues from; None: it begins at sample 0."""
    identity: Identity | None
    """Of the run; on rank 0 only."""
    counted: tuple[str, ...]
    """Keys of the objectives whose losses the run's metrics have."""
    changes: list[str]
    """What differs from the previous start, for the record."""
    forgotten: list[str]
    """What the user may have forgotten to type."""
    interventions: Interventions
    """What has changed the run on its way."""

    @property
    def manifest(self) -> Manifest | None:
        """Of the checkpoint."""
        return None if self.checkpoint is None else self.checkpoint[1]

    @property
    def own_manifest(self) -> Manifest | None:
        """The same, unless another run's checkpoint was taken on purpose: its records are not this run's."""
        if self.manifest is None or self.identity is None:
            return None
        return self.manifest if self.manifest.run_id in (None, self.identity.run_id) else None

    @property
    def rounds_otherwise(self) -> str | None:
        """That this program computes other bits than the one that wrote the checkpoint; None if it does not."""
        if self.manifest is None or numerics_of(self.manifest.extra) == NUMERICS:
            return None
        return (
            f"This program rounds otherwise (numerics {NUMERICS}) than the one that wrote the checkpoint (numerics "
            f"{numerics_of(self.manifest.extra)}): the run goes on with equal meaning, but not with the same last digits."
        )

    @property
    def metrics_checksum(self) -> int | None:
        """Checksum of the lines of metrics.jsonl up to here, from the checkpoint."""
        return None if self.own_manifest is None else checksum_in(self.own_manifest.extra)


def resume(prepared: Prepared, session: Session, log: Trackers) -> Resumed:
    """Choose the checkpoint that a start continues from, build the engine, and restore its state; collective.

    Args:
        prepared: the start.
        session: its process groups.
        log: gets a line for each checkpoint that is skipped.

    Raises:
        UserError: the run cannot continue as it was typed; the message says what to type.
        DistributedError: ranks disagree, or a later attempt of the run has begun.
    """
    config, folder = prepared.config, prepared.folder
    is_main = prepared.world.is_main
    choice.agree_on_numbers(config, prepared.device, session)
    check_copy_is_shared(config.checkpoint.copy_to, session)
    run = _settle_identity(folder.path, log) if is_main else None
    choice.claim_copy(folder, config, run, session)
    known = choice.decided_by_rank_0(session, lambda: _known_interventions(prepared, log))
    checkpoint = choice.choose_checkpoint(folder, config, prepared.stored, session, log, run)
    if checkpoint is None:
        run = choice.begin_at_0(folder, run)
        choice.claim_copy(folder, config, run, session)
        known = Interventions()
    seen = 0 if checkpoint is None else checkpoint[1].progress.get("samples_seen", 0)
    if seen and is_main:
        # A launcher chooses the nodes of the next attempt by this number, even if this attempt ends here.
        folder.write_status("running", seen, STARTING)
    start.check_batches(seen, config, prepared.world.size)
    stored = prepared.stored
    if stored is None and checkpoint is not None:  # config.yaml was lost
        stored = from_checkpoint_yaml(checkpoint[1].config)
    changes = start.describe_changes(stored, config)
    if stored is not None:
        changes += schedule_changes(stored, config, seen)
    kept, known = known, continued(known, stored, config, seen, time.time())
    rewarmups = [each.rewarmup_samples for each in known.schedules if each not in kept.schedules]
    changes += [
        f"learning rate warms up from 0 over {each:,} samples" for each in rewarmups if each
    ]
    if known != kept and is_main:
        # Before config.yaml is replaced: a start that is killed in between finds the same change again.
        record(known, folder, config, prepared.generation, log.log)
    forgotten = start.forgotten_words(folder, prepared.overrides, changes)
    if checkpoint is not None:
        skipped = known.skipped(config.data.skip_samples)
        changes += start.check_data(checkpoint[1], prepared.training, config, skipped)
    counted = settle([prepared.training, prepared.validation], checkpoint and checkpoint[1])
    follows = checkpoint is not None or config.checkpoint.init_from is not None
    engine = build_engine(config, session, draws_weights=not follows)
    progress = Progress()
    if checkpoint is not None:
        progress = restore(engine, *checkpoint)
    elif config.checkpoint.init_from is not None:
        given = Path(config.checkpoint.init_from)
        weights = initialise_from(engine, given, config, session, log.log)
        log.log(f"Starting from the weights of {weights}")
    _continue_after(prepared, progress)
    return Resumed(engine, progress, checkpoint, run, counted, changes, forgotten, known)


def resume_again(
    previous: Resumed,
    path: Path,
    prepared: Prepared,
    session: Session,
    interventions: Interventions,
) -> Resumed:
    """Set a run that has trained in this process back to one of its checkpoints; collective, between two steps.

    Its next steps are a new generation: what was saved after the checkpoint belongs to a history that the run has left.

    Args:
        previous: the previous resume in this process; its engine is used again.
        path: checkpoint of this run.
        prepared: the start.
        session: its process groups.
        interventions: what has changed the run, the decision to go back included.

    Raises:
        CheckpointError: the checkpoint is damaged. The engine's state is as it was.
        DistributedError: a later attempt of the run has begun.
    """
    manifest = verify_together(path, session)
    skipped = interventions.skipped(prepared.config.data.skip_samples)
    changes = start.check_data(manifest, prepared.training, prepared.config, skipped)
    counted = settle([prepared.training, prepared.validation], manifest)
    progress = restore(previous.engine, path, manifest)
    if prepared.generation is not None:
        prepared.generation.renew()
    _continue_after(prepared, progress)
    return Resumed(
        *(previous.engine, progress, (path, manifest), previous.identity, counted, changes, []),
        interventions=interventions,
    )


def _continue_after(prepared: Prepared, progress: Progress) -> None:
    if prepared.generation is not None:
        prepared.generation.fence()
        prepared.generation.continue_after(progress.step)


def _known_interventions(prepared: Prepared, log: Trackers) -> Interventions:
    """What the run folder or its second copy has recorded; afterwards the folder has it. On rank 0."""
    folder, config = prepared.folder, prepared.config
    found = found_interventions(folder, config)
    if found != read_interventions(folder.path):
        record(found, folder, config, prepared.generation, log.log)
    return found


def _settle_identity(run: Path, log: Trackers) -> Identity:
    become_a_run(run)
    return identity.settle(run, log.log)
