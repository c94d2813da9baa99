"""Carrying out a rollback: the decision is written durably before anything else changes.

Rank 0 decides from the checkpoints that it finds, and writes the decision into the run folder and the second copy. From
there on a kill changes nothing: the next start finds the decision, passes over what was saved after the checkpoint, and
leaves out the same data.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from configs import derive
from configs.errors import CheckpointError, DivergenceError
from configs.interventions import Interventions, Rollback, read_interventions
from configs.run_checkpoints import committed, step_of
from configs.run_paths import RunPaths
from configs.schema import Config
from glm.checkpoint.disk import sync_to_disk
from glm.checkpoint.reader import read_manifest
from train.checkpoint import copy_folder, places_of
from train.generations import Generation, History
from train.identity import Identity
from train.plan import TrainingPlan
from train.progress import Progress
from train.run_folder import RunFolder
from train.small_files import replace_file
from train.stability.policy import Candidate, decide, with_rollback
from train.stability.records import Alarm
from train.stability.rollback_words import described


def found_interventions(folder: RunFolder, config: Config) -> Interventions:
    """Those of a run folder, or of its second copy where that is later: the folder may have lost its file.

    Raises:
        RecordError: a file is damaged.
    """
    own = read_interventions(folder.path)
    copy = copy_folder(config)
    if copy is None:
        return own
    with contextlib.suppress(
        OSError
    ):  # a copy that cannot be read does not keep a run from its own file
        copied = read_interventions(copy)
        if copied.revision > own.revision:
            return copied
    return own


def record(
    interventions: Interventions,
    folder: RunFolder,
    config: Config,
    generation: Generation | None,
    log: Callable[[str], None],
) -> None:
    """Write interventions durably, into the run folder and its second copy.

    Raises:
        DistributedError: a later attempt of the run has begun.
        OSError: the run folder cannot be written.
    """
    if generation is not None:
        generation.fence()
    replace_file(folder.interventions, interventions.to_json())
    sync_to_disk(folder.path)  # the new name, too
    copy = copy_folder(config)
    if copy is None or not copy.is_dir():  # nothing was copied there yet
        return
    try:
        replace_file(RunPaths(copy).interventions, interventions.to_json())
    except OSError as error:
        log(f"{RunPaths(copy).interventions} was not written: {error.strerror}. Training goes on.")


def decide_and_record(
    alarm: Alarm,
    reached: Progress,
    known: Interventions,
    *,
    config: Config,
    folder: RunFolder,
    generation: Generation | None,
    identity: Identity | None,
    healthy_step: int | None,
    dp: int,
    log: Callable[[str], None],
    alert: Callable[[str, str], None],
) -> tuple[Interventions, list[Path]]:
    """Decide on a rollback and write it down; on rank 0.

    Args:
        alarm: what was found.
        reached: position of the run after that step.
        known: what has changed the run so far.
        config: of the run.
        folder: of the run.
        generation: of this attempt.
        identity: of the run.
        healthy_step: of the checkpoint that retention keeps for a rollback.
        dp: number of replicas now.
        log: gets what could not be written.
        alert: gets a title, and the decision in words.

    Returns:
        All interventions, and the checkpoints to go back to: the one decided on, then those before it.

    Raises:
        DivergenceError: the run must not go on; the message says what was tried.
        DistributedError: a later attempt of the run has begun.
        OSError: the run folder cannot be written.
    """
    found = _checkpoints(folder, config, identity)
    decision = decide(alarm, reached, config, known, list(found))
    number = 0 if generation is None else generation.number
    _check_batches(decision, reached, config, known, dp)
    decision = replace(decision, generation=number, time=time.time())
    interventions = with_rollback(known, decision)
    record(interventions, folder, config, generation, log)
    lost = reached.samples_seen - decision.checkpoint_samples
    alert("Rollback", described(decision, healthy_step, lost))
    folder.event("rollback", **asdict(decision))
    paths = [
        path
        for candidate, path in sorted(found.items(), key=lambda item: item[0].step, reverse=True)
        if candidate.step <= decision.checkpoint_step
    ]
    return interventions, paths


def kept_lines(folder: RunFolder, rollbacks: list[Rollback], lines: Path) -> Path | None:
    """Where what the last rollback cuts off is kept; None: there was none, or it is kept already.

    Args:
        folder: of the run.
        rollbacks: so far.
        lines: the file with a line for a step.
    """
    if not rollbacks:
        return None
    path = folder.rolled_back / f"rollback_{len(rollbacks)}_{lines.name}"
    return None if path.exists() else path


def _check_batches(
    decision: Rollback, reached: Progress, config: Config, known: Interventions, dp: int
) -> None:
    """Check that the steps to train again divide among today's replicas: their batches are those of their time.

    Raises:
        DivergenceError: they do not.
    """
    plan = TrainingPlan.from_config(config, known)
    seen = decision.checkpoint_samples
    while seen < reached.samples_seen:
        size = plan.step_at(seen).num_samples
        if not derive.divides(config.optim, dp, size):
            raise DivergenceError(
                f"{decision.reason}. Going back to step {decision.checkpoint_step:,} would train a batch of {size:,} samples "
                f"again, which does not divide among {dp:,} replicas in micro-batches of "
                f"{config.optim.micro_batch_size:,}. Start with as many replicas as then: the decision is not recorded."
            )
        seen += size


def _checkpoints(
    folder: RunFolder, config: Config, identity: Identity | None
) -> dict[Candidate, Path]:
    """The checkpoints of the run's history, those in its own folder before copies of the same step."""
    history = History.read(folder.path)
    own = None if identity is None else identity.run_id
    found: dict[Candidate, Path] = {}
    for place in places_of(config, folder.checkpoints):
        with contextlib.suppress(OSError):  # of a second copy
            for path in committed(place.checkpoints):
                with contextlib.suppress(CheckpointError):  # damaged: it is passed over
                    manifest = read_manifest(path)
                    if manifest.run_id not in (None, own):
                        continue
                    if history.admits(manifest.generation, step_of(path)):
                        seen = int(manifest.progress.get("samples_seen", 0))
                        found.setdefault(Candidate(step_of(path), seen), path)
    return found
