"""The training loop: plan a step, train it, agree on what happened, log, evaluate, save - until done or asked to stop."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from configs import derive
from configs.errors import CheckpointError, DistributedError, DivergenceError
from configs.run_paths import CHECKPOINTS
from configs.schema import Config, OnSpike
from data_pipeline.dataset import GLMDataset
from data_pipeline.file_changes import FileWatch
from data_pipeline.sampler import samples_drawn
from glm.loss import ObjectiveSums
from train import time_limit
from train.batches import BatchStream, StepBatches, micro_batches_of
from train.checkpoint import Outcome, Saver
from train.collection import collecting_between_steps
from train.device import synchronize
from train.engine import Engine, GradientNorms, StepOutcome
from train.evaluation import evaluate, share_of
from train.generations import Generation
from train.observe.observers import ObservedStep, Observers
from train.pace import Pace
from train.parts import CHECKPOINT, DATA, EVALUATION, LOGGING, part
from train.plan import StepPlan, TrainingPlan
from train.progress import Progress
from train.rank_checks import RankChecks
from train.run_folder import RunFolder
from train.session import Session
from train.stability.guard import Guard
from train.stability.records import Alarm, Kind
from train.step_metrics import Agreed, MetricsLine
from train.stop import StopSignal
from train.time_limit import TimeLimit
from train.trackers import Trackers
from train.watchdog import StepLimits, Watchdog

_TOO_MANY_SKIPS = (
    "{limit} steps in a row were skipped for overflow or NaN (stability.max_skipped_steps), and would be again. Type the same "
    "command with a lower optim.lr, leave the data out with data.skip_samples, or go back with checkpoint.resume=PATH to a "
    "checkpoint from before them."
)
_STOPPED = (
    "{alarm} (stability.on_spike=stop). Go back with checkpoint.resume=PATH to a checkpoint from before it, and type "
    "data.skip_samples=[[a,b]] or a lower optim.lr with it; or type stability.on_spike=rollback, which does so by itself."
)


@dataclass(frozen=True)
class Ending:
    """How training ended."""

    progress: Progress
    """The position reached."""
    was_stopped: bool
    """True if that is before the run's end, on request."""
    alarm: Alarm | None = None
    """What the run has to go back for; None: nothing."""


@dataclass
class Trainer:
    """What the loop composes; built by train/training.py."""

    config: Config
    session: Session
    folder: RunFolder
    plan: TrainingPlan
    engine: Engine
    batches: BatchStream
    validation: GLMDataset
    line: MetricsLine
    """Makes the metrics of a step."""
    files: FileWatch
    """Watches the files of both data sets."""
    trackers: Trackers
    saver: Saver
    guard: Guard
    skip_samples: list[list[int]]
    """Ranges of the data stream that are left out."""
    stop: StopSignal
    generation: Generation | None
    """The generation of this attempt; on rank 0 only."""
    watchdog: Watchdog
    limits: StepLimits
    time_limit: TimeLimit
    pace: Pace
    checks: RankChecks
    observers: Observers

    def run(self, progress: Progress) -> Ending:
        """Train from `progress` to the end, to a stop, or to a spike after which the run goes back.

        Raises:
            CheckpointError: the last checkpoint could not be written.
            DataChangedError: shards were written to since they were opened.
            DistributedError: ranks disagree, a later attempt has begun, or the file system failed while the last
                checkpoint was written.
            DivergenceError: the run spikes, or too many steps in a row were left out, and it must not go back by itself.
        """
        with collecting_between_steps() as collect:
            return self._run(progress, collect)

    def _run(self, progress: Progress, collect: Callable[[int], None]) -> Ending:
        is_first = True
        while not self.plan.is_finished(progress.samples_seen):
            if is_first and self._has_reached_stop(progress):
                return Ending(progress, was_stopped=True)  # an earlier attempt reached it
            step = self.plan.step_at(progress.samples_seen)
            self.time_limit.begin_pass()
            self._watch(f"the step after {progress.samples_seen:,} samples", is_rare=is_first)
            self.guard.begin(step, progress.step + 1, progress.samples_drawn)
            self.observers.begin(progress.step + 1)
            with self.checks.of_step(progress.step + 1):
                agreed = self._train(step)
            is_first = False
            self.limits.observe(agreed.rank_seconds_max)
            if self.generation is not None and self.generation.is_superseded:
                self.generation.fence()
            before, progress = progress, self._advance(progress, step, agreed)
            self._check_copies(self.checks.report(progress))
            collect(progress.step)
            if agreed.was_skipped:
                self._report_left_out(before, progress, agreed)
            with part(CHECKPOINT):
                self._report_saves(self.saver.poll(agreed.save_failed))
            self.saver.observe(agreed.sums.mean, agreed.was_skipped)

            finished = self.plan.is_finished(progress.samples_seen)
            stopping = agreed.stop_requested or self._has_reached_stop(progress)
            valid, before_evaluation = None, time.perf_counter()
            if finished or self.plan.eval_due(before.samples_seen, progress.samples_seen):
                valid = self.evaluate()
            evaluated = time.perf_counter() - before_evaluation if valid is not None else 0.0
            blocked = self.saver.take_blocked_seconds()
            with part(LOGGING):
                line = self.line.of(step, progress, agreed, valid, blocked, evaluated)
                self.trackers.log_metrics(line)
                self.observers.end(ObservedStep(step, progress, agreed, valid))
            alarms = self.guard.end(
                agreed.sums, agreed.norms, agreed.was_skipped, agreed.loss_scale
            )
            if alarm := self._respond(alarms):
                return Ending(progress, was_stopped=stopping and not finished, alarm=alarm)
            if slow := self.pace.observe(agreed.rank_seconds_max, step.num_samples):
                self.trackers.log(slow)
            save_due = self.plan.save_due(before.samples_seen, progress.samples_seen)
            if finished or stopping or save_due:
                self._watch("saving", is_rare=True)
                for note in self.files.check():
                    self.trackers.log(note)
                self.time_limit.begin_save(progress.step)
                with part(CHECKPOINT):
                    self.saver.save(progress)
            if stopping and not finished:
                self._wait_for_the_last_save()
                return Ending(progress, was_stopped=True)
        self._wait_for_the_last_save()
        return Ending(progress, was_stopped=False)

    def settle_saves(self) -> None:
        """Wait between two steps until the saves that are under way have ended on all ranks, and say how."""
        self._watch("the last save", is_rare=True)
        self._report_saves(self.saver.finish())

    def close(self) -> None:
        """End this rank's threads, after an error as well: no other rank is asked."""
        self.checks.close()
        self.observers.close()
        self.saver.close()
        self.guard.close()
        self.batches.close()

    def evaluate(self) -> ObjectiveSums:
        """Held-out loss of the current weights."""
        self._watch("an evaluation", is_rare=True)
        micro_batch_size = self.config.optim.micro_batch_size
        with part(EVALUATION):
            return evaluate(
                self.engine, self.session, self.validation, self.config.eval, micro_batch_size
            )

    @property
    def _no_layers(self) -> tuple[float, ...]:
        return (math.nan,) * self.config.model.num_layers

    def _train(self, step: StepPlan) -> Agreed:
        started = time.perf_counter()
        with part(DATA):
            batches = self.batches.next_step()
        self.observers.drawn(batches)
        targets_per_mean = 0.0
        if derive.counts_tokens(self.config):
            targets = self.session.sum_over_replicas([batches.num_targets])[0]
            micro_batch_size = self.config.optim.micro_batch_size
            targets_per_mean = targets * micro_batch_size / step.num_samples
        weighting = self.config.objective.loss_weighting
        outcome = self.engine.train_step(
            step, micro_batches_of(batches, weighting, targets_per_mean)
        )
        synchronize(self.session.device)
        return self._agree(step, batches, outcome, time.perf_counter() - started)

    def _agree(
        self, step: StepPlan, batches: StepBatches, outcome: StepOutcome, seconds: float
    ) -> Agreed:
        """One sum over all ranks: losses, norms, requests to stop, and each rank's own time and checksum."""
        topology = self.session.topology
        is_counted = topology.is_last_stage and topology.tp_rank == 0
        targets = float(batches.num_targets) if is_counted else 0.0
        if self.time_limit.is_near:
            self.stop.ask(time_limit.REASON)
        requests = [float(self.stop.reason is not None), float(self.saver.has_failed)]
        # A rank alone writes its places of the last two parts, so their sums are what it wrote.
        own = [0.0] * (2 * topology.world_size)
        own[topology.rank] = seconds
        own[topology.world_size + topology.rank] = float(batches.checksum)
        values = self.session.sum(
            [
                *share_of(outcome.sums, self.session),
                *(outcome.embedding_sum_of_squares, targets, *requests),
                *own,
            ]
        )
        of_ranks, values = values[-len(own) :], values[: -len(own)]
        *sums, squares, targets, stop, failed = values
        of_embedding = math.sqrt(squares) if squares >= 0 else math.nan
        rank_seconds = of_ranks[: topology.world_size]
        self._check_checksums(step, of_ranks[topology.world_size :])
        return Agreed(
            sums=ObjectiveSums.from_list(sums),
            norms=outcome.norms or GradientNorms(outcome.grad_norm, of_embedding, self._no_layers),
            grad_norm=outcome.grad_norm,
            grad_norm_embedding=of_embedding,
            was_skipped=outcome.was_skipped,
            vetoes=outcome.vetoes,
            loss_scale=outcome.loss_scale,
            target_fraction=targets / (step.num_samples * self.config.model.seq_length),
            seconds=seconds,
            rank_seconds_max=max(rank_seconds),
            rank_seconds_min=min(rank_seconds),
            wait_seconds=batches.wait_seconds,
            stop_requested=stop > 0,
            save_failed=failed > 0,
        )

    def _check_checksums(self, step: StepPlan, checksums: list[float]) -> None:
        """The ranks of a replica that read data, by the checksums of all ranks, must have read the same."""
        own = self.session.topology
        read: dict[int, set[float]] = {}
        for rank, checksum in enumerate(checksums):
            place = replace(own, rank=rank)
            if place.reads_data:
                read.setdefault(place.dp_rank, set()).add(checksum)
        for replica, found in read.items():
            if len(found) > 1:
                raise DistributedError(
                    f"[{self.session.topology}] the ranks of replica {replica} drew different data for the step at "
                    f"sample {step.samples_seen:,}: first and last stage would train on unlike rows. Check that all "
                    "nodes see the same shards (python -m data_pipeline verify PREFIX) and library versions."
                )

    def _advance(self, progress: Progress, step: StepPlan, agreed: Agreed) -> Progress:
        seen = progress.samples_seen + step.num_samples
        drawn = samples_drawn(seen, self.skip_samples)
        return progress.after(
            step.num_samples, self.config.model.seq_length, drawn, agreed.was_skipped
        )

    def _respond(self, alarms: Sequence[Alarm]) -> Alarm | None:
        """Report alarms; returns what the run has to go back for.

        Raises:
            DivergenceError: it may not go back by itself, and must not go on.
        """
        policy = self.config.stability.on_spike
        for alarm in alarms:
            if alarm.goes_back:
                self.trackers.alert("Spike", f"Spike at {alarm.text}.")
            else:
                self.trackers.log(f"Warning: {alarm.text}.")
            if self.session.topology.rank == 0:
                self.folder.event("spike", **alarm.facts)
        grave = [alarm for alarm in alarms if alarm.goes_back]
        if policy is OnSpike.rollback:
            return grave[0] if grave else None
        for alarm in grave:
            if alarm.kind is Kind.skipped:
                raise DivergenceError(_TOO_MANY_SKIPS.format(limit=int(alarm.value)))
            if policy is OnSpike.stop:
                raise DivergenceError(_STOPPED.format(alarm=alarm.text))
        return None

    def _check_copies(self, difference: str | None) -> None:
        """Raise DistributedError if copies of weights differ and the run need not go on with them: a restart loads them."""
        if difference is not None and self.config.stability.on_spike is not OnSpike.warn:
            raise DistributedError(
                f"{difference} The same command continues from the newest checkpoint."
            )

    def _report_left_out(self, before: Progress, after: Progress, agreed: Agreed) -> None:
        reason = "; ".join(agreed.vetoes) or "overflow, or a gradient or loss that is not finite"
        if self.session.topology.rank == 0:
            self.folder.event(
                "skip",
                step=after.step,
                samples_seen=[before.samples_seen, after.samples_seen],
                samples_drawn=[before.samples_drawn, after.samples_drawn],
                reason=reason,
            )
        if agreed.vetoes:
            self.trackers.log(f"The update of step {after.step:,} was left out: {reason}.")

    def _has_reached_stop(self, progress: Progress) -> bool:
        limit = self.config.run.stop_after_samples
        return limit is not None and progress.samples_seen >= limit

    def _watch(self, doing: str, is_rare: bool) -> None:
        limits = self.limits
        self.watchdog.watch(doing, limits.rare_seconds if is_rare else limits.step_seconds)

    def _wait_for_the_last_save(self) -> None:
        self._watch("the last save", is_rare=True)
        outcomes = self.saver.finish()
        self._report_saves(outcomes)
        for outcome in outcomes:
            if outcome.error is None or outcome.is_copy:
                continue
            reason = f"The last checkpoint was not written: {outcome.error}."
            if outcome.may_pass:
                raise DistributedError(
                    f"{reason} The same command continues from the checkpoint before it."
                )
            raise CheckpointError(
                f"{reason} Make room, then type the same command again: the run continues from the checkpoint before it."
            )

    def _report_saves(self, outcomes: Sequence[Outcome]) -> None:
        """Log the outcomes of saves and record them as events."""
        if self.session.topology.rank != 0:
            return
        for outcome in outcomes:
            self.time_limit.end_save(outcome.progress.step)
            what = "second copy of the checkpoint" if outcome.is_copy else "checkpoint"
            name, seen = outcome.folder.name, outcome.progress.samples_seen
            if outcome.error is not None:
                self.trackers.log(
                    f"The {what} {name} was not written: {outcome.error}. Training goes on."
                )
                self.folder.event("error", message=f"{what} {name}: {outcome.error}")
            elif outcome.is_copy:
                self.folder.event("checkpoint_copy", path=name, samples_seen=seen)
            else:
                self.folder.event("checkpoint", path=f"{CHECKPOINTS}/{name}", samples_seen=seen)
                self.trackers.log_checkpoint(outcome.folder, seen)
                self.folder.write_status("running", seen, "training")
