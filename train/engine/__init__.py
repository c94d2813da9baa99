"""The training engine: everything that knows DeepSpeed, behind the two interfaces of train/engine/interface.py."""

import contextlib

from configs.schema import Config
from glm.counter_random import without_initial_values
from train.engine.gradients import norms_of_parts
from train.engine.interface import (
    Engine,
    GradientNorms,
    HeldBytes,
    HeldWeight,
    PendingUpdate,
    StepOutcome,
    TrainingState,
    UpdateHook,
)
from train.engine.optimizers import optimizer_name
from train.engine.pipeline import PipelineEngine
from train.engine.stages import build_pipeline, is_tied_copy, stage_instructions
from train.session import Session

__all__ = [
    "Engine",
    "GradientNorms",
    "HeldBytes",
    "HeldWeight",
    "PendingUpdate",
    "StepOutcome",
    "TrainingState",
    "UpdateHook",
    "build_engine",
    "build_pipeline",
    "is_tied_copy",
    "norms_of_parts",
    "optimizer_name",
    "stage_instructions",
]


def build_engine(config: Config, session: Session, draws_weights: bool = True) -> Engine:
    """Build this rank's stage of the model and the engine that trains it.

    Args:
        config: of the run; `precision` is already resolved.
        session: the open process groups.
        draws_weights: False if all weights are loaded from a checkpoint before the first step.

    Raises:
        ConfigError: optim.name is not installed.
    """
    with contextlib.nullcontext() if draws_weights else without_initial_values():
        return PipelineEngine(config, session)
