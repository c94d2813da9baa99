"""The run, its checkpoints, its evaluation and its logs."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated

from configs.bounds import Count, not_negative


class Wandb(str, Enum):
    """Weights & Biases: `auto` is online with an API key and offline without one."""

    off = "off"
    auto = "auto"
    online = "online"
    offline = "offline"


class ProgressBar(str, Enum):
    """The terminal: `auto` draws a live display on one and prints lines elsewhere."""

    auto = "auto"
    on = "on"
    off = "off"


@dataclass
class RunConfig:
    """The run and its folder."""

    name: str | None = None
    """Name of the run; default: the experiment's name."""
    dir: str | None = None
    """Run folder; default `runs/<run.name>`."""
    stop_after_samples: Count | None = None
    """Stop as if asked to (checkpoint, exit code 75) once this many samples are seen; null: run to the end."""
    time_limit: str | None = None
    """Stop as if asked to before the process has run this long, in a form of `cluster.time`: when another step and a save, as slow as the
    slowest so far, would not end in time. null: SLURM's limit of the job, where it is known."""
    time_margin_seconds: Annotated[float, not_negative(60)] = 60.0
    """Kept free before the time limit, in seconds; before the first save it is also the assumed duration of a save."""


@dataclass
class CheckpointConfig:
    """When checkpoints are written, kept and read."""

    save_every_samples: Count | None = None
    """Interval in samples; default a tenth of total_samples. The last step is always saved."""
    keep_last: Count = 2
    """How many of the newest checkpoints to keep."""
    keep_every_samples: Count | None = None
    """Also keep permanently the first checkpoint at or after each multiple of this many samples."""
    keep_healthy: bool = True
    """Also keep the newest checkpoint after which training is known to have gone well: no step was skipped before the next
    save, and the mean loss was finite and not higher than before. A diverged run can go back to it."""
    healthy_margin: Annotated[float, not_negative(0.5)] = 0.5
    """How much higher that mean loss may be than in the stretch before it, in nats."""
    copy_to: str | None = None
    """Folder for a second copy of each checkpoint: its subfolder NAME is a run folder that can be continued and used by
    itself. It belongs to this run; another run of the same name is refused. All ranks must see it: a local disk works on
    one node and is refused on several. The run continues from the copy if it has a newer complete checkpoint."""
    copy_keep_last: Count = 1
    """How many of the newest second copies to keep."""
    resume: str = "auto"
    """auto: continue if the run folder has a checkpoint; never: refuse to start if it has one, and begin at 0 if the run
    has lost its checkpoints; or the path of a checkpoint, or of a run folder, whose newest checkpoint is used."""
    init_from: str | None = None
    """Checkpoint, or run folder, whose weights alone start a new run (optimizer, schedule and data position start anew);
    model.seq_length may differ."""


@dataclass
class EvalConfig:
    """Held-out loss during and after training."""

    every_samples: Count | None = None
    """Interval in samples; default a quarter of total_samples. The end of the run is always evaluated."""
    num_samples: Count = 128
    """Validation rows per evaluation, the same ones each time."""


@dataclass
class LogConfig:
    """The run's output while it trains."""

    every_steps: Count = 10
    """Steps between console lines; metrics.jsonl and wandb always get every step."""
    details_every_steps: Count | None = None
    """Steps between lines of details.jsonl, which has the split of a step's time, norms of every layer, memory by part and the
    loss of every source. null: no such file."""
    samples_every_samples: Count | None = None
    """Interval in samples at which the model fills the same six blanks of held-out sentences for samples.jsonl, and once
    more at the end of the run. Each time takes at most 32 forward passes of six short rows. null: never."""
    profile_steps: list[int] | None = None
    """First and last step that PyTorch's profiler traces, such as [100,103]; python -m train.profile sums the traces up. null:
    none."""
    profile_ranks: list[int] = field(default_factory=lambda: [0])
    """Ranks that it runs on."""
    progress_bar: ProgressBar = ProgressBar.auto
    """A live display: progress, time left, losses, norms, speed, memory, the last checkpoint and event. auto: on a terminal, where
    lines are printed otherwise; on: always; off: lines."""
    wandb: Wandb = Wandb.off
    """Weights & Biases tracking."""
    wandb_project: str = "glm-pretraining"
    """wandb project."""
    wandb_entity: str | None = None
    """wandb entity; null: the account's default."""
    tensorboard: bool = False
    """Write the curves for TensorBoard, too, into the folder `tensorboard` of the run; needs the extra [tensorboard]."""
