"""Every schedule of a run as a pure function of the samples seen.

Nothing here counts steps or remembers anything, so a run resumed, resized or skipped forward is on the same schedule.
What a resume has changed holds from its position on, and before it the schedules that were; a rollback may lower the
learning rate for a while. The learning rate of a step is that of its first sample. GLM-130B, section 2.3 and table 11.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass

from configs import derive
from configs.interventions import EarlierSchedule, Interventions
from configs.schema import Config, OptimConfig, Schedule


@dataclass(frozen=True)
class StepPlan:
    """One optimizer step."""

    samples_seen: int
    """Samples seen before the step, which is the position of its first sample."""
    num_samples: int
    """Global batch size."""
    learning_rate: float
    embedding_shrink: float
    """Alpha of the embedding gradient shrink."""


@dataclass(frozen=True)
class TrainingPlan:
    """The whole run, as functions."""

    optim: OptimConfig
    embedding_shrink: list[list[float]]
    save_every_samples: int
    eval_every_samples: int
    interventions: Interventions = Interventions()

    @classmethod
    def from_config(
        cls, config: Config, interventions: Interventions | None = None
    ) -> "TrainingPlan":
        """Take the schedules of a configuration, and what has changed them on the way."""
        return cls(
            config.optim,
            config.stability.embedding_shrink,
            derive.save_every_samples(config),
            derive.eval_every_samples(config),
            interventions or Interventions(),
        )

    def step_at(self, samples_seen: int) -> StepPlan:
        """Plan the step that starts after `samples_seen` samples."""
        earlier = self.schedule_before(samples_seen)
        optim = self.optim if earlier is None else earlier.optim
        points = self.embedding_shrink if earlier is None else earlier.embedding_shrink
        changed = self.interventions
        rate = learning_rate(optim, samples_seen) * changed.learning_rate_factor(samples_seen)
        shrink = interpolate(points, samples_seen) * changed.embedding_shrink_factor(samples_seen)
        return StepPlan(
            samples_seen,
            derive.batch_size_at(optim, samples_seen),
            rate * self._rewarmup(samples_seen),
            shrink,
        )

    def schedule_before(self, samples_seen: int) -> EarlierSchedule | None:
        """The earlier schedule that holds at a position; None: today's does."""
        known = self.interventions.schedules
        return next((each for each in known if samples_seen < each.until_samples), None)

    def _rewarmup(self, samples_seen: int) -> float:
        """Factor of the warm-up after the last change before a position."""
        changes = [
            each for each in self.interventions.schedules if each.until_samples <= samples_seen
        ]
        if not changes or not changes[-1].rewarmup_samples:
            return 1.0
        since = samples_seen - changes[-1].until_samples
        return min(since / changes[-1].rewarmup_samples, 1.0)

    def is_finished(self, samples_seen: int) -> bool:
        """True once the run has seen all its samples."""
        return samples_seen >= self.optim.total_samples

    def save_due(self, before: int, after: int) -> bool:
        """True if a checkpoint falls between two positions."""
        return crosses(before, after, self.save_every_samples)

    def eval_due(self, before: int, after: int) -> bool:
        """True if an evaluation falls between two positions."""
        return crosses(before, after, self.eval_every_samples)


def learning_rate(optim: OptimConfig, samples_seen: int) -> float:
    """Learning rate at a position: linear warm-up from 0, then cosine, wsd or constant; min_lr after the decay."""
    warmup, decay = derive.warmup_samples(optim), derive.decay_samples(optim)
    if samples_seen < warmup:
        return optim.lr * samples_seen / warmup
    if optim.schedule is Schedule.constant:
        return optim.lr
    low = derive.min_lr(optim)
    if samples_seen >= decay:
        return low
    if optim.schedule is Schedule.cosine:
        progress = (samples_seen - warmup) / (decay - warmup)
        return low + (optim.lr - low) * (1 + math.cos(math.pi * progress)) / 2
    # Warm-up, stable, decay: linear over the last stretch (Hu et al. 2024, MiniCPM).
    length = derive.wsd_decay_samples(optim)
    if samples_seen < decay - length:
        return optim.lr
    return low + (optim.lr - low) * (decay - samples_seen) / length


def interpolate(points: list[list[float]], samples_seen: int) -> float:
    """Value at a position of a piecewise linear schedule given as [samples, value] points."""
    after = bisect_right([point[0] for point in points], samples_seen)
    if after == 0:
        return points[0][1]
    if after == len(points):
        return points[-1][1]
    (x0, y0), (x1, y1) = points[after - 1], points[after]
    return y0 + (y1 - y0) * (samples_seen - x0) / (x1 - x0)


def crosses(before: int, after: int, interval: int) -> bool:
    """True if a multiple of `interval` lies in (before, after]."""
    return before // interval != after // interval
