"""Saving a run's state while training continues.

Training waits only for a copy of the state in host memory (train/checkpoint/host_copy.py). A thread in every rank then
writes that rank's file, and rank 0's thread commits (train/checkpoint/save_attempt.py). The threads use no collectives.
All ranks agree on the result between two steps: the loop includes `has_failed` in the numbers that it exchanges anyway,
and passes the result to `poll`. A save that failed on any rank is abandoned on all; training continues, and the previous
checkpoint stays. A save waits for the one before it; `finish` waits for the last.
"""

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from configs.checkpoint_yaml import to_checkpoint_yaml
from configs.run_checkpoints import step_folder
from configs.schema import Config
from glm.checkpoint.manifest import Manifest
from glm.checkpoint.ownership import rank_file_name
from train.checkpoint.health import Health, HealthWatch
from train.checkpoint.host_copy import HostCopy
from train.checkpoint.save_attempt import CommitPlan, RankPart, SaveAttempt
from train.checkpoint.store import Fence, Pins, Sync, no_fence, nothing_to_sync, places_of
from train.device import HostTransfer
from train.engine import Engine
from train.progress import Progress
from train.session import Session

# The thread runs at a lower priority than training.
_NICENESS = 5


@dataclass(frozen=True)
class Outcome:
    """How a save ended."""

    folder: Path
    progress: Progress
    error: str | None
    """Why the save failed; None if the checkpoint is committed."""
    may_pass: bool
    """True if the reason for the failure may be gone after a restart."""
    is_copy: bool
    """True for the second copy (`checkpoint.copy_to`)."""


@dataclass(frozen=True)
class Origin:
    """What later checkpoints need to know about the checkpoint that the run continues from."""

    step: int | None = None
    health: Health = Health()

    @classmethod
    def of(cls, manifest: Manifest | None) -> "Origin":
        """Read it from the manifest of that checkpoint; None for a new run."""
        if manifest is None:
            return cls()
        return cls(manifest.step, Health.from_dict(manifest.extra.get("health")))


class Saver:
    """Writes the checkpoints of a run; every rank has one and calls it at the same moments, between steps.

    Args:
        checkpoints: folder that holds the run's checkpoints.
        config: configuration of the run, stored in each checkpoint.
        data_state: description of the data (data_pipeline.dataset.GLMDataset.describe) and the skipped ranges.
        session: process groups.
        engine: the engine whose state is saved.
        extra: values that each checkpoint stores unchanged, such as the id of the wandb run.
        origin: the checkpoint that the run continues from; None for a new run.
        generation: number of this attempt, stored in each checkpoint.
        fence: raises once a later attempt has begun; called before anything visible is changed.
        sync: called by the thread before a commit, to write files to disk that the checkpoint relies on.
        run_id: identity of the run, on rank 0; None if the run has none.
        keep: called at each save; returns what is stored beside `extra`, such as checksums of files that the checkpoint
            relies on.
        keep_before: called at each save with its step; the newest checkpoint before each step that it returns is kept.
    """

    def __init__(
        self,
        checkpoints: Path,
        config: Config,
        data_state: dict[str, Any],
        session: Session,
        engine: Engine,
        extra: dict[str, Any],
        origin: Origin | None = None,
        generation: int = 0,
        fence: Fence = no_fence,
        sync: Sync = nothing_to_sync,
        run_id: str | None = None,
        keep: Callable[[], dict[str, Any]] = dict,
        keep_before: Callable[[int], tuple[int, ...]] = lambda _: (),
    ) -> None:
        self._keep = keep
        self._keep_before = keep_before
        self._settings = config.checkpoint
        # Rendered only once, because it takes longer than copying a small state.
        self._stored_config = to_checkpoint_yaml(config)
        self._data_state = data_state
        self._session = session
        self._state = engine.state
        self._shapes, self._slots = self._state.shapes(), self._state.slots()
        self._extra = extra if run_id is None else {**extra, "run_id": run_id}
        self._generation = generation
        self._places = places_of(config, checkpoints, fence, sync, run_id)
        origin = origin or Origin()
        self._health = HealthWatch(origin.health, origin.step, config.checkpoint.healthy_margin)
        self._copy = HostCopy(HostTransfer(session.device))
        self._remove_hook = engine.add_hook(lambda _: self._copy.hold_updates())
        self._progress = Progress()
        self._attempts: list[SaveAttempt] = []
        self._failed: set[SaveAttempt] = set()  # as agreed: the same on every rank
        self._reported: set[SaveAttempt] = set()
        self._outcomes: list[Outcome] = []
        self._thread: threading.Thread | None = None
        self._blocked_seconds = 0.0

    @property
    def has_failed(self) -> bool:
        """True if a thread of this rank has failed and the ranks have not agreed on it yet."""
        return any(
            attempt.error is not None for attempt in self._attempts if attempt not in self._failed
        )

    @property
    def healthy_step(self) -> int | None:
        """Step of the newest checkpoint after which training is known to have gone well."""
        return self._health.healthy_step

    def leave(self, step: int) -> None:
        """Set aside the checkpoints after a step that the run goes back to; on rank 0, while nothing is being saved.

        Raises:
            DistributedError: a later attempt of the run has begun.
        """
        for place in self._places:
            place.leave(step)

    def observe(self, loss: float | None, was_skipped: bool) -> None:
        """Record a step: a run does not go back to a checkpoint after which training went wrong."""
        self._health.observe(loss, was_skipped)

    def save(self, progress: Progress) -> None:
        """Save the state after `progress.step` steps; returns once it is copied into host memory.

        The outcome of the previous save, if it was not returned yet, is among those of the next `poll` or `finish`.
        """
        started = time.perf_counter()
        self._settle()
        self._progress = progress
        attempts = self._prepare(progress)
        thread = threading.Thread(
            target=self._write, args=(attempts,), name="checkpoint", daemon=True
        )
        thread.start()
        # Set only after the thread has started: waiting for attempts without a thread would never end.
        self._thread, self._attempts = thread, attempts
        self._blocked_seconds += time.perf_counter() - started

    def poll(self, failed_somewhere: bool) -> list[Outcome]:
        """Return the outcomes since the last call: every checkpoint on rank 0, every failure on all ranks.

        Args:
            failed_somewhere: True if `has_failed` was True on any rank; the same value on every rank.

        Raises:
            DistributedError: a later attempt of the run has begun.
        """
        if failed_somewhere:
            for attempt in self._attempts:
                self._agree_on_failure(attempt)
        if self._session.topology.rank == 0:
            for attempt in self._attempts:
                if attempt.finished.is_set() and attempt.error is None:
                    self._report(attempt, None)
                if attempt.fatal is not None:
                    raise attempt.fatal
        return self._take_outcomes()

    def finish(self) -> list[Outcome]:
        """Wait until the last save has ended on all ranks; returns the outcomes that were not returned before.

        Raises:
            DistributedError: a later attempt of the run has begun.
        """
        self._settle()
        return self._take_outcomes()

    def close(self) -> None:
        """Remove the hook from the engine. After an error, first wait for a write in progress, without collectives."""
        for attempt in self._attempts:
            attempt.leave()
        self._remove_hook()

    def take_blocked_seconds(self) -> float:
        """Seconds that training waited for saves since the last call; reported with the step after them."""
        blocked, self._blocked_seconds = self._blocked_seconds, 0.0
        return blocked

    def _prepare(self, progress: Progress) -> list[SaveAttempt]:
        """Start copying the state, and agree on the file names of this save attempt."""
        topology = self._session.topology
        health = self._health.at_save(progress.step)
        mark, suffix, refusals = self._agree_on_attempt(progress.step)
        names = [rank_file_name(rank, mark, suffix) for rank in range(topology.world_size)]
        pieces = self._copy.take(self._state.pieces())
        part = RankPart(names[topology.rank], pieces, self._shapes, self._slots, str(topology))
        numbers = self._state.numbers()
        commit_plan = None
        if topology.rank == 0:
            healthy = health.healthy_step if self._settings.keep_healthy else None
            pins = Pins(healthy, self._keep_before(progress.step))
            commit_plan = CommitPlan(self._draft(progress, numbers, health), names, pins)
        return [
            SaveAttempt(
                place, step_folder(place.checkpoints, progress.step), part, commit_plan, refusal
            )
            for place, refusal in zip(self._places, refusals, strict=True)
        ]

    def _agree_on_attempt(self, step: int) -> tuple[str, str, list[str | None]]:
        """Let rank 0 make room and choose a unique suffix for the file names, so that no stale file is mistaken for one.

        Returns:
            The run's mark, the suffix, and for each store why nothing may be written there (None: it may).
        """
        agreed: list[Any] = [None]
        if self._session.topology.rank == 0:
            refusals = [
                place.make_room(step_folder(place.checkpoints, step)) for place in self._places
            ]
            agreed = [(self._places[0].mark, uuid.uuid4().hex[:8], refusals)]
        dist.broadcast_object_list(agreed, src=0, group=self._session.control_group)
        return agreed[0]

    def _draft(self, progress: Progress, numbers: dict[str, Any], health: Health) -> Manifest:
        topology = self._session.topology
        return Manifest(
            step=progress.step,
            progress=progress.to_dict(),
            data_state=self._data_state,
            config=self._stored_config,
            optimizer=numbers,
            tensors={},
            files={},
            fragments=[],
            layout={"tp": topology.tp, "pp": topology.pp, "dp": topology.dp},
            extra={**self._extra, **self._keep(), "health": health.to_dict()},
            generation=self._generation,
        )

    def _write(self, attempts: list[SaveAttempt]) -> None:
        """Run all save attempts; the body of the thread."""
        with contextlib.suppress(OSError):  # saving works at normal priority, too
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        try:
            self._copy.wait()
        except Exception as problem:  # the device may have failed; raising here would go unnoticed
            for attempt in attempts:
                attempt.fail(f"the state was not copied into host memory: {problem!r}")
            return
        for attempt in attempts:
            attempt.run()

    def _settle(self) -> None:
        """Wait for the threads of all ranks, and agree on the results."""
        for attempt in self._attempts:
            attempt.written.wait()
            # This comes before waiting for the commit: rank 0 would wait for the file of a rank that has failed.
            self._agree_on_failure(attempt)
            attempt.finished.wait()
            # Only rank 0 knows whether the commit succeeded.
            self._agree_on_failure(attempt)
            self._report(attempt, None)
        if self._thread is not None:
            self._thread.join()
        self._thread, self._attempts = None, []
        self._reported.clear()
        self._failed.clear()

    def _agree_on_failure(self, attempt: SaveAttempt) -> None:
        """Abandon a save attempt on all ranks if it failed on any."""
        if attempt in self._failed:
            return
        own = (attempt.error, attempt.may_pass)
        everyone: list[tuple[str | None, bool]] = [own] * self._session.topology.world_size
        dist.all_gather_object(everyone, own, group=self._session.control_group)
        failures = [(error, passes) for error, passes in everyone if error is not None]
        if failures:
            self._failed.add(attempt)
            attempt.give_up()
            self._report(attempt, *failures[0])
        if attempt.fatal is not None:
            raise attempt.fatal

    def _report(self, attempt: SaveAttempt, error: str | None, may_pass: bool = False) -> None:
        if attempt in self._reported:
            return
        self._reported.add(attempt)
        is_copy = attempt is not self._attempts[0]
        if not is_copy:
            self._health.settle(was_written=error is None)
        self._outcomes.append(Outcome(attempt.folder, self._progress, error, may_pass, is_copy))

    def _take_outcomes(self) -> list[Outcome]:
        outcomes, self._outcomes = self._outcomes, []
        return outcomes
