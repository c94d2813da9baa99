"""What all ranks know about a step, and the line of metrics that it becomes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from configs import derive
from configs.objectives import Objective
from configs.schema import Config
from glm.loss import ObjectiveSums
from train.device import peak_memory_gib, peak_tflops
from train.engine import GradientNorms
from train.metrics import Metrics, loss_metrics, metrics_line, speed_metrics
from train.plan import StepPlan
from train.progress import Progress
from train.session import Session


@dataclass(frozen=True)
class Agreed:
    """What all ranks know about a step after exchanging their results."""

    sums: ObjectiveSums
    norms: GradientNorms
    """Of the gradient; NaN for layers where they were not measured."""
    grad_norm: float
    grad_norm_embedding: float
    was_skipped: bool
    vetoes: tuple[str, ...]
    """Why the update was left out, other than for gradients that are not finite."""
    loss_scale: float | None
    target_fraction: float
    seconds: float
    rank_seconds_max: float
    rank_seconds_min: float
    wait_seconds: float
    stop_requested: bool
    save_failed: bool
    """A thread that writes a checkpoint has failed on some rank."""


@dataclass(frozen=True)
class MetricsLine:
    """Makes the metrics of each step."""

    config: Config
    session: Session
    objectives: Sequence[Objective]
    """That the sums number."""
    counted: Sequence[str]
    """Keys of the objectives whose losses the run's metrics have."""

    @cached_property
    def _peak_tflops(self) -> float | None:
        config = self.config
        return config.cluster.peak_tflops or peak_tflops(self.session.device, config.precision)

    def of(
        self,
        step: StepPlan,
        progress: Progress,
        agreed: Agreed,
        valid: ObjectiveSums | None,
        blocked_seconds: float,
        evaluation_seconds: float,
    ) -> Metrics:
        """The metrics of a step.

        Args:
            step: its plan.
            progress: position after it.
            agreed: its results.
            valid: held-out losses after it; None: they were not computed.
            blocked_seconds: how long saves kept training waiting since the step before.
            evaluation_seconds: how long the held-out losses took; 0 where they were not computed.
        """
        config, session = self.config, self.session
        values: Metrics = {
            "step": progress.step,
            "samples_seen": progress.samples_seen,
            "tokens_seen": progress.tokens_seen,
            "data/samples_drawn": progress.samples_drawn,
            **self._losses("train", agreed.sums),
            **(self._losses("valid", valid) if valid is not None else {}),
            "optim/lr": step.learning_rate,
            "optim/grad_norm": agreed.grad_norm,
            "optim/grad_norm_embedding": agreed.grad_norm_embedding,
            "optim/loss_scale": agreed.loss_scale,
            "optim/skipped_steps": progress.skipped_steps,
            "optim/embedding_shrink": step.embedding_shrink,
            "optim/global_batch_size": step.num_samples,
            **speed_metrics(
                step.num_samples,
                agreed.seconds,
                config.model.seq_length,
                derive.flops_per_sample(config.model),
                derive.flops_per_sample(config.model, config.parallel.recompute),
                session.topology.world_size,
                self._peak_tflops,
            ),
            "speed/data_wait_seconds": agreed.wait_seconds,
            "speed/checkpoint_blocked_seconds": blocked_seconds,
            "speed/evaluation_seconds": evaluation_seconds,
            "speed/rank_seconds_max": agreed.rank_seconds_max,
            "speed/rank_seconds_min": agreed.rank_seconds_min,
            "memory/peak_gib": peak_memory_gib(session.device),
            "data/target_tokens_fraction": agreed.target_fraction,
        }
        return metrics_line(values, self.counted)

    def _losses(self, prefix: str, sums: ObjectiveSums) -> Metrics:
        return loss_metrics(prefix, sums, self.objectives, self.counted)
