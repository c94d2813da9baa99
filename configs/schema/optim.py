"""The optimizer with its schedules, and what keeps a large run from diverging."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated

from configs.bounds import Bound, Count, ShareBelow1, above_zero, not_negative, power_of_two

SPIKE_WINDOW = Bound("at least 16", lambda value: value >= 16, 256)
SHARE_ABOVE_0 = Bound("above 0 and at most 1", lambda value: 0 < value <= 1, 0.5)


class Schedule(str, Enum):
    """Shape of the learning rate after its linear warm-up."""

    cosine = "cosine"
    wsd = "wsd"
    constant = "constant"


@dataclass
class BatchRampConfig:
    """Growth of the global batch: `start`, then `increment` more at equal intervals over `samples` samples."""

    start: Count | None = None
    """Global batch size of the first step, in samples; default `increment`, or about an eighth of the full batch."""
    increment: Count | None = None
    """Growth of the global batch per interval, in samples; default a divisor of `start` and of the full batch."""
    samples: Count | None = None
    """Length of the whole ramp, in samples; default 2.5 % of optim.schedule_samples."""


@dataclass
class OptimConfig:
    """The optimizer and its schedules, all functions of the samples seen."""

    name: str = "adamw"
    """adamw, or PACKAGE:NAME of an optimizer that an installed package registers (docs/extending.md)."""
    micro_batch_size: Count = 4
    """Samples per data-parallel rank and forward pass."""
    global_batch_size: Count = 16
    """Samples per optimizer step; micro_batch_size x gradient accumulation x data-parallel size."""
    total_samples: Count = 4096
    """Length of the run, in samples; the last step is a whole one."""
    schedule_samples: Count | None = None
    """Length of the run from which warm-up, decay and batch ramp are derived; default total_samples. Set it to the previous
    total_samples when you make a run longer: training then continues at the learning rate that its decay ended with."""
    schedule: Schedule = Schedule.cosine
    """Shape of the learning rate after warm-up."""
    lr: Annotated[float, above_zero(1e-4)] = 1e-3
    """Peak learning rate."""
    min_lr: float | None = None
    """Final learning rate; default lr / 10."""
    warmup_samples: Annotated[int, not_negative()] | None = None
    """Linear warm-up from 0, in samples; default a tenth of schedule_samples."""
    decay_samples: int | None = None
    """Samples seen when the learning rate reaches min_lr and becomes constant; default schedule_samples."""
    wsd_decay_samples: int | None = None
    """Length of the final decay of the wsd schedule, in samples; default 10 % of decay_samples."""
    rewarmup_samples: Annotated[int, not_negative()] = 0
    """Linear warm-up of the learning rate from 0, in samples, after a resume that changes the data or the schedule of the
    learning rate (GLM-130B did so after its data were replaced); 0: none."""
    weight_decay: Annotated[float, not_negative()] = 0.1
    """Decoupled weight decay; none on LayerNorm parameters and biases."""
    beta1: ShareBelow1 = 0.9
    """Adam's first-moment decay."""
    beta2: ShareBelow1 = 0.95
    """Adam's second-moment decay."""
    eps: Annotated[float, not_negative()] = 1e-8
    """Adam's epsilon."""
    clip: Annotated[float, not_negative()] = 1.0
    """Largest global gradient norm; 0: no clipping."""
    batch_ramp: BatchRampConfig | None = None
    """Batch-size warm-up; null: no ramp."""


class OnSpike(str, Enum):
    """What follows a spike or drift of the loss, a collapse of the loss scale, or too many steps left out in a row."""

    warn = "warn"
    stop = "stop"
    rollback = "rollback"


@dataclass
class StabilityConfig:
    """Measures against divergence of large runs. GLM-130B, section 3."""

    embedding_shrink: list[list[float]] = field(default_factory=lambda: [[0.0, 0.1]])
    """Embedding gradient shrink alpha as points [samples_seen, alpha], linear between them, constant after the last."""
    on_spike: OnSpike = OnSpike.warn
    """What follows a spike or drift of the loss, or a collapse of the loss scale. warn: an event and a line of the log; stop:
    the run ends with exit code 2; rollback: the run goes back to a checkpoint from before it, in the same process, and
    trains on without the data in between; a step with a wildly large gradient norm is then left out before its update."""
    gradient_limit: Annotated[float, above_zero(16)] = 16.0
    """A gradient norm (global, of the embedding, of a layer) is wildly large when its logarithm lies so many median absolute
    deviations (MAD) above the median of stability.spike_window steps."""
    loss_limit: Annotated[float, above_zero(8)] = 8.0
    """A loss is an outlier when its logarithm lies so many MADs above the median of stability.spike_window steps."""
    spike_steps: list[int] = field(default_factory=lambda: [12, 20])
    """[k, n]: a spike is when k of the last n losses are outliers."""
    spike_window: Annotated[int, SPIKE_WINDOW] = 256
    """Steps that gradient norms and losses are compared with; outliers are kept out."""
    drift_limit: Annotated[float, above_zero(8)] = 8.0
    """The loss drifts when its median of 64 steps stays so many standard errors of such medians, and 2 %, above the lowest
    level so far."""
    loss_scale_halvings: Count = 6
    """The loss scale of fp16 has collapsed when it lies so many halvings below its median."""
    skip_steps: Count = 64
    """A rollback leaves out the data from where the spike may have begun to so many global batches after where it was
    found."""
    rollback_lr: Annotated[float, SHARE_ABOVE_0] = 1.0
    """Factor of the learning rate after a rollback, for stability.rollback_samples."""
    rollback_shrink: Annotated[float, SHARE_ABOVE_0] = 1.0
    """Factor of the embedding gradient shrink after a rollback, for stability.rollback_samples."""
    relapse_lr: Annotated[float, SHARE_ABOVE_0] = 0.5
    """Factor of the learning rate after a rollback that others led up to, since leaving out data did not help; once for
    each of them after the first."""
    rollback_samples: Count | None = None
    """Samples after a rollback with these factors, which then return to 1 over as many; a spike within them is taken for the
    same one. null: 2 % of optim.schedule_samples, and at least 256 global batches."""
    max_rollbacks: Count = 4
    """Rollbacks for the same spike before the run stops with exit code 2."""
    initial_loss_scale: Annotated[float, power_of_two(65536)] = 65536.0
    """First loss scale of fp16."""
    loss_scale_window: Count = 200
    """Steps without overflow before the fp16 loss scale doubles."""
    loss_scale_hysteresis: Count = 2
    """Overflows before the fp16 loss scale halves."""
    min_loss_scale: Annotated[float, power_of_two(1)] = 1.0
    """Smallest fp16 loss scale."""
    max_skipped_steps: Count = 50
    """Steps left out in a row after which the run stops with an error, or goes back with stability.on_spike=rollback."""
    watchdog_seconds: Annotated[float, above_zero(600)] | None = None
    """Seconds after which a step counts as hanging: every rank then writes its stacks to runs/NAME/stacks and exits with 3,
    so that the launcher restarts the run. The first step, evaluations and saves may take ten times as long. null: 20
    times the slowest recent step, at least 300 (and at least 1800 for the first step, evaluations and saves)."""
    meeting_seconds: Annotated[float, above_zero(120)] = 120.0
    """Seconds that the ranks wait at the start for a rank that does not come; then they exit with 3 and name it. A rank
    that has come may take any time to prepare."""
    checksum_every_steps: Count | None = 100
    """Steps between two comparisons of the weights that several ranks hold (docs/stability.md#silent-errors-and-slow-ranks): copies that differ
    name parameter, rank and host. null: off."""
