"""A run's training in one process: what stays for as long as the process, and what each resume builds anew."""

import threading
from functools import partial
from pathlib import Path
from typing import Any

import torch

from configs.errors import CheckpointError
from configs.interventions import Interventions
from configs.load import to_stored_yaml
from configs.schema import Wandb
from configs.version import commit
from data_pipeline.corpus import keep_tokenizer
from data_pipeline.file_changes import FileWatch
from data_pipeline.tokenizer import describe_tokenizer
from glm import numerics
from glm.checkpoint.manifest import DamagedCheckpointError
from train import counted
from train.batches import BatchStream
from train.checkpoint import Origin, Saver, no_fence
from train.choice import decided_by_rank_0
from train.details_file import IntervalTracker
from train.device import peak_hint
from train.exposure import exposure_warning
from train.loop import Trainer
from train.metrics_file import JsonlTracker, StoredMetrics
from train.nodes import hosts_of, stretches_of_nodes
from train.observe.build import build_observers
from train.observe.observers import Observers
from train.pace import Pace, busy_hint
from train.plan import TrainingPlan
from train.prepared import Prepared
from train.process_limits import deadline, watchdog_of
from train.progress import Progress
from train.rank_checks import RankChecks
from train.remote_trackers import remote_trackers
from train.resume import Resumed, resume, resume_again
from train.session import Session
from train.stability import guard as guards
from train.stability.guard import Guard
from train.stability.records import Alarm
from train.stability.rollback import decide_and_record, kept_lines
from train.startup import startup_report
from train.step_metrics import MetricsLine
from train.stop import StopSignal
from train.terminal.tracker import ConsoleTracker
from train.time_limit import TimeLimit
from train.trackers import Trackers
from train.wandb_account import run_id
from train.watchdog import StepLimits, Watchdog
from train.world import attempt_start, node_name


class Training:
    """Resumes a run, and trains it; `resume` may be called again to set it back to one of its checkpoints.

    The engine, the console, wandb and the watchdog stay. The position, the batches ahead, metrics.jsonl and the saver
    are those of the last resume.

    Args:
        prepared: the start.
        session: its process groups.
    """

    def __init__(self, prepared: Prepared, session: Session) -> None:
        self._prepared = prepared
        self._session = session
        self._attempt_start, self._hosts = attempt_start(), hosts_of(session)
        self._is_main = prepared.world.is_main
        self._terminal = (
            ConsoleTracker.of(prepared.config, prepared.folder.log) if self._is_main else None
        )
        self._console = Trackers([self._terminal] if self._terminal is not None else [])
        self._remote, self._has_failed = Trackers([]), threading.Event()
        self._wandb_id: str | None = None
        self._metrics: JsonlTracker | None = None
        self._interval: IntervalTracker | None = None
        self._resumed: Resumed | None = None
        self._trainer: Trainer | None = None
        self._watchdog: Watchdog | None = None
        self._limits = StepLimits(prepared.config.stability.watchdog_seconds)
        self._time_limit = TimeLimit(deadline(prepared), prepared.config.run.time_margin_seconds)
        self._pace = Pace()
        self._files = FileWatch([prepared.training, prepared.validation])
        say = (lambda _: False) if self._terminal is None else self._terminal.say_at_once
        self.stop = StopSignal(prepared.folder.stop_file, say)
        self.trackers = self._console
        """All that this rank reports to, once the run is resumed."""

    def resume(
        self, checkpoint: Path | None = None, interventions: Interventions | None = None
    ) -> None:
        """Put the run at the position where it continues, and record that.

        Args:
            checkpoint: of this run, to set it back to; None: what its folder and `checkpoint.resume` say, the first
                time.
            interventions: what has changed the run, with the decision to go back; None: as before.

        Raises:
            UserError: the run cannot go on as it was typed; the message says what to type.
            DistributedError: ranks disagree, or a later attempt of the run has begun.
        """
        if self._resumed is None:
            assert checkpoint is None, "the first resume finds its checkpoint"
            resumed = resume(self._prepared, self._session, self._console)
            # Before the start is recorded: what is recorded goes on to the first step, which is saved.
            self.stop.install()
        else:
            assert checkpoint is not None and self._trainer is not None, (
                "a later resume is given its checkpoint"
            )
            self._trainer.settle_saves()
            self._trainer.close()
            known = interventions or self._resumed.interventions
            resumed = resume_again(self._resumed, checkpoint, self._prepared, self._session, known)
        if resumed.identity is not None:
            self._record(resumed)
        if self._resumed is None:
            self._introduce(resumed)
        if resumed.checkpoint is not None:
            seen = resumed.progress.samples_seen
            how = "Continuing after" if self._resumed is None else "Set back to"
            self.trackers.log(f"{how} {seen:,} samples from {resumed.checkpoint[0]}")
        if self._watchdog is None:
            self._watchdog = watchdog_of(self._prepared, self._remote.alert)
        self._resumed = resumed
        self._trainer = self._build_trainer(resumed, self._watchdog)
        rollbacks = resumed.interventions.rollbacks
        if self._is_main and rollbacks and rollbacks[-1].checkpoint_step >= resumed.progress.step:
            self._trainer.saver.leave(resumed.progress.step)

    def run(self) -> tuple[Progress, bool]:
        """Train from where the last resume has put the run.

        A spike sets it back to an earlier checkpoint, from which it trains on (train/stability/).

        Returns:
            The position reached, and True if the run was stopped before its end.

        Raises:
            CheckpointError, DataChangedError, DistributedError, DivergenceError: see train/loop.py.
        """
        while True:
            assert self._resumed is not None and self._trainer is not None, "resume comes first"
            ending = self._trainer.run(self._resumed.progress)
            if ending.alarm is None:
                return ending.progress, ending.was_stopped
            interventions, paths = self._decide(ending.alarm, ending.progress)
            if ending.was_stopped:  # the next start carries it out
                return ending.progress, True
            self._go_back(interventions, paths)

    def _decide(self, alarm: Alarm, reached: Progress) -> tuple[Interventions, list[Path]]:
        """Decide on a rollback, on all ranks alike; afterwards it is written down."""
        assert self._resumed is not None and self._trainer is not None, "there was a step"
        resumed, trainer, prepared = self._resumed, self._trainer, self._prepared
        trainer.settle_saves()
        return decided_by_rank_0(
            self._session,
            lambda: decide_and_record(
                alarm,
                reached,
                resumed.interventions,
                config=prepared.config,
                folder=prepared.folder,
                generation=prepared.generation,
                identity=resumed.identity,
                healthy_step=trainer.saver.healthy_step,
                dp=self._session.topology.dp,
                log=self.trackers.log,
                alert=self.trackers.alert,
            ),
        )

    def _go_back(self, interventions: Interventions, paths: list[Path]) -> None:
        """Resume from the first whole one of some checkpoints."""
        for path in paths:
            try:
                self.resume(path, interventions)
                return
            except DamagedCheckpointError as error:
                self.trackers.log(f"{error} Going back to the checkpoint before it.")
        raise CheckpointError(
            f"No checkpoint to go back to is whole: {', '.join(map(str, paths))}. Restore one from a copy."
        )

    def close(self) -> None:
        """End the threads of this rank, after an error as well: no other rank is asked."""
        if self._watchdog is not None:
            self._watchdog.close()
        if self._trainer is not None:
            self._trainer.close()
        if self._terminal is not None:
            self._terminal.take_down()

    def _kept_in_checkpoints(self, guard: Guard, observers: Observers) -> dict[str, Any]:
        of_metrics = {} if self._metrics is None else self._metrics.keep_checksum()
        return {**of_metrics, **guard.state(), **observers.state()}

    def leave_remote(self) -> None:
        """End the trackers of other programs after a failure, as they would keep the process from ending; bounded."""
        self._has_failed.set()
        self._remote.close()

    def release(self) -> None:
        """Close the engine, which is not used any more."""
        if self._trainer is not None:
            self._trainer.observers.finish()
        if self._resumed is not None:
            self._resumed.engine.close()

    def _record(self, resumed: Resumed) -> None:
        """Write what is run, before the first step; rank 0 does."""
        assert resumed.identity is not None, "rank 0 knows whose records they are"
        folder, config, progress = self._prepared.folder, self._prepared.config, resumed.progress
        topology = self._session.topology
        if self._resumed is None:
            overrides = self._prepared.overrides
            folder.write_source(overrides, to_stored_yaml(config), torch.get_num_threads())
            keep_tokenizer(self._prepared.corpora.tokenizer, folder.tokenizer)
        stored = StoredMetrics(folder.metrics)
        folder.event(
            "resume" if progress.step else "start",
            samples_seen=progress.samples_seen,
            world_size=self._prepared.world.size,
            tp=topology.tp,
            pp=topology.pp,
            dp=topology.dp,
            host=node_name(),
            nodes=stretches_of_nodes(self._hosts.names),
            attempt_start=self._attempt_start,
            commit=commit(),
            run_id=resumed.identity.run_id,
            **stored.repeated_after(progress.step),
        )
        if resumed.changes and progress.step:
            folder.event("config_change", changes=resumed.changes)
        if resumed.rounds_otherwise is not None:
            folder.event("numerics_change", message=resumed.rounds_otherwise)
        folder.write_status("running", progress.samples_seen, "training")
        if self._resumed is None and config.log.wandb is not Wandb.off:
            self._wandb_id = _wandb_id(self._prepared, resumed, self._console)
        if self._metrics is not None:
            self._metrics.close()
        if self._interval is not None:
            self._interval.close()
        kept = partial(kept_lines, folder, resumed.interventions.rollbacks)
        self._metrics = JsonlTracker(
            folder.metrics, progress.step, resumed.metrics_checksum, kept(folder.metrics), stored
        )
        self._interval = IntervalTracker(folder.details, folder.samples, progress.step, kept)
        if self._resumed is None:
            run, log = resumed.identity.run_id, self._console.log
            names = (self._wandb_id, run)
            self._remote = Trackers(
                remote_trackers(config, folder.path, *names, progress.step, log, self._has_failed)
            )
        self.trackers = Trackers([self._console, self._metrics, self._interval, self._remote])

    def _introduce(self, resumed: Resumed) -> None:
        """Say what was chosen for the run, and what the user should know of it."""
        prepared = self._prepared
        self.trackers.log(
            startup_report(
                prepared.config,
                self._session.topology,
                prepared.device,
                prepared.training,
                prepared.precision_reason,
            )
        )
        busy = busy_hint() if prepared.device.type == "cpu" else None
        described = describe_tokenizer(prepared.tokenizer)
        warning = exposure_warning(prepared.world)
        said = (described, prepared.hint, busy, warning, *resumed.changes, resumed.rounds_otherwise)
        config = prepared.config
        peak = peak_hint(prepared.device, config.precision, config.cluster.peak_tflops)
        for line in filter(None, (*said, peak, *resumed.forgotten)):
            self.trackers.log(line)

    def _build_trainer(self, resumed: Resumed, watchdog: Watchdog) -> Trainer:
        prepared, config = self._prepared, self._prepared.config
        plan = TrainingPlan.from_config(config, resumed.interventions)
        skipped = resumed.interventions.skipped(config.data.skip_samples)
        guard = self._build_guard(resumed)
        observers = build_observers(
            prepared,
            self._session,
            resumed,
            plan,
            skipped,
            self.trackers,
            lambda doing: watchdog.watch(doing, self._limits.rare_seconds),
        )
        return Trainer(
            config=config,
            session=self._session,
            folder=prepared.folder,
            plan=plan,
            engine=resumed.engine,
            batches=BatchStream(
                prepared.training,
                plan,
                self._session.topology,
                config.optim.micro_batch_size,
                skipped,
                resumed.progress.samples_seen,
            ),
            validation=prepared.validation,
            line=MetricsLine(
                config, self._session, prepared.validation.objectives, resumed.counted
            ),
            files=self._files,
            trackers=self.trackers,
            saver=self._build_saver(resumed, guard, observers, skipped),
            guard=guard,
            skip_samples=skipped,
            stop=self.stop,
            generation=prepared.generation,
            watchdog=watchdog,
            limits=self._limits,
            time_limit=self._time_limit,
            pace=self._pace,
            checks=self._build_checks(resumed),
            observers=observers,
        )

    def _build_checks(self, resumed: Resumed) -> RankChecks:
        config, folder = self._prepared.config, self._prepared.folder
        return RankChecks(config, self._session, resumed.engine, folder, self.trackers, self._hosts)

    def _build_guard(self, resumed: Resumed) -> Guard:
        manifest, config, data = resumed.manifest, self._prepared.config, self._prepared.training
        stored = None if manifest is None else manifest.extra.get(guards.ENTRY)
        guard = Guard(config, resumed.engine, data, resumed.counted, stored)
        if guard.has_forgotten:
            self.trackers.log(
                "The checkpoint's record of usual losses and gradients is of other thresholds: it begins anew."
            )
        return guard

    def _build_saver(
        self,
        resumed: Resumed,
        guard: Guard,
        observers: Observers,
        skip_samples: list[list[int]],
    ) -> Saver:
        prepared, config = self._prepared, self._prepared.config
        generation = prepared.generation
        return Saver(
            checkpoints=prepared.folder.checkpoints,
            config=config,
            data_state={
                "dataset": prepared.training.describe(),
                "skip_samples": skip_samples,
            },
            session=self._session,
            engine=resumed.engine,
            extra={
                "wandb_run_id": self._wandb_id,
                counted.ENTRY: list(resumed.counted),
                numerics.ENTRY: numerics.NUMERICS,
            },
            origin=Origin.of(resumed.manifest),
            generation=0 if generation is None else generation.number,
            fence=no_fence if generation is None else generation.fence,
            sync=self.trackers.sync,
            run_id=None if resumed.identity is None else resumed.identity.run_id,
            keep=lambda: self._kept_in_checkpoints(guard, observers),
            keep_before=guard.keep_before,
        )


def _wandb_id(prepared: Prepared, resumed: Resumed, log: Trackers) -> str:
    """Another run's checkpoint, taken on purpose, must not make this one report to that run."""
    manifest = resumed.own_manifest
    stored = None if manifest is None else manifest.extra.get("wandb_run_id")
    return run_id(prepared.folder.path, stored, log.log)
