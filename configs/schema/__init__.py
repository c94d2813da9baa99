"""Every key of a run, with its type, unit and default: the one list that the command line, the YAML and the docs share.

A default of None means "derived": configs/derive.py computes it from other keys, so each key can be overridden alone.
Interval and schedule keys count samples (rows of `model.seq_length` tokens), never steps: GLM-130B's log shows what a
schedule in steps costs when the batch size changes (its embedding-shrink ramp took 26,850 steps instead of 6,000).
"""

from dataclasses import dataclass, field
from typing import Annotated

from configs.bounds import Bound
from configs.schema.cluster import ClusterConfig
from configs.schema.data import (
    DataConfig,
    Documents,
    LossWeighting,
    MipPacking,
    MipPositions,
    MipTruncate,
    ObjectiveConfig,
    SliceRule,
    SpecialTokenTexts,
)
from configs.schema.model import (
    AttentionPath,
    DeviceKind,
    ModelConfig,
    Norm,
    ParallelConfig,
    PipelineSchedule,
    Precision,
    Recompute,
    RopeTables,
)
from configs.schema.optim import BatchRampConfig, OnSpike, OptimConfig, Schedule, StabilityConfig
from configs.schema.run import (
    CheckpointConfig,
    EvalConfig,
    LogConfig,
    ProgressBar,
    RunConfig,
    Wandb,
)

__all__ = [
    "AttentionPath",
    "BatchRampConfig",
    "CheckpointConfig",
    "ClusterConfig",
    "Config",
    "DataConfig",
    "DeviceKind",
    "Documents",
    "EvalConfig",
    "LogConfig",
    "LossWeighting",
    "MipPacking",
    "MipPositions",
    "MipTruncate",
    "ModelConfig",
    "Norm",
    "ObjectiveConfig",
    "OnSpike",
    "OptimConfig",
    "ParallelConfig",
    "PipelineSchedule",
    "Precision",
    "ProgressBar",
    "Recompute",
    "RopeTables",
    "RunConfig",
    "Schedule",
    "SliceRule",
    "SpecialTokenTexts",
    "StabilityConfig",
    "Wandb",
]

SEED = Bound(
    "between 0 and 2^63 - 1",
    lambda value: 0 <= value < 2**63,
    1234,
    must="lie between 0 and 2^63 - 1",
)


@dataclass
class Config:
    """A whole run."""

    experiment: str = "default"
    """The experiment file that was composed; the run's default name."""
    seed: Annotated[int, SEED] = 1234
    """Seeds the initial weights, dropout and the data order."""
    device: DeviceKind = DeviceKind.auto
    """auto: CUDA where a GPU is visible."""
    precision: Precision = Precision.auto
    """auto: the format that is fast on the device, resolved at the first start and stored in the run folder."""
    deterministic: bool = False
    """On CUDA use deterministic kernels, so that two runs with equal keys are byte-equal (slower); CPU runs always are."""
    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    stability: StabilityConfig = field(default_factory=StabilityConfig)
    log: LogConfig = field(default_factory=LogConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
