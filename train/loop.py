"""The training loop: plan a step, train it, agree on what happened, log, evaluate, save - until done or asked to stop."""

import math
import time
from dataclasses import dataclass

from configs.errors import DistributedError
from configs.schema import Config, LossWeighting
from data_pipeline.dataset import GLMDataset
from data_pipeline.sampler import samples_drawn
from glm.loss import ObjectiveSums
from train.batches import BatchStream, StepBatches, micro_batches_of
from train.checkpoint import Saver
from train.distributed import Session
from train.engine import Engine, StepOutcome
from train.evaluate import evaluate, share_of
from train.metrics import StepMetrics
from train.plan import StepPlan, TrainingPlan
from train.progress import Progress
from train.stop import StopSignal
from train.trackers import Trackers


@dataclass
class Trainer:
    """What the loop composes; built by train/main.py."""

    config: Config
    session: Session
    plan: TrainingPlan
    engine: Engine
    batches: BatchStream
    validation: GLMDataset
    trackers: Trackers
    saver: Saver
    stop: StopSignal

    def run(self, progress: Progress) -> tuple[Progress, bool]:
        """Train from `progress` to the end.

        Returns:
            The position reached, and True if the run was asked to stop before its end.

        Raises:
            DistributedError: ranks disagree, or too many steps in a row were skipped.
        """
        skipped_in_a_row = 0
        while not self.plan.is_finished(progress.samples_seen):
            step = self.plan.step_at(progress.samples_seen)
            before = progress
            started = time.perf_counter()
            batches = self.batches.next_step()
            outcome = self.engine.train_step(step, self._micro_batches(step, batches))
            agreed = self._agree(step, batches, outcome, time.perf_counter() - started)
            progress = self._advance(progress, step, agreed)
            skipped_in_a_row = skipped_in_a_row + 1 if agreed.was_skipped else 0
            self._check_skips(skipped_in_a_row)

            finished = self.plan.is_finished(progress.samples_seen)
            stopping = agreed.stop_requested or self._reached_stop(progress)
            valid = None
            if finished or self.plan.eval_due(before.samples_seen, progress.samples_seen):
                valid = self.evaluate()
            self.trackers.log(self._metrics(step, progress, agreed, valid))
            if finished or stopping or self.plan.save_due(
                before.samples_seen, progress.samples_seen
            ):
                self.saver.save(progress)
            if stopping and not finished:
                return progress, True
        return progress, False

    def evaluate(self) -> ObjectiveSums:
        """Held-out loss of the current weights."""
        return evaluate(
            self.engine,
            self.session,
            self.validation,
            self.config.eval,
            self.config.optim.micro_batch_size,
        )
