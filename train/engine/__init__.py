"""The training engine: everything that knows DeepSpeed, behind the two interfaces of train/engine/interface.py."""

from configs.schema import Config
from train.engine.interface import (
    Engine,
    GradientNorms,
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
    "PendingUpdate",
    "StepOutcome",
    "TrainingState",
    "UpdateHook",
    "build_engine",
    "build_pipeline",
    "is_tied_copy",
    "optimizer_name",
    "stage_instructions",
]


def build_engine(config: Config, session: Session) -> Engine:
    """Build this rank's stage of the model and the engine that trains it.

    Args:
        config: of the run; `precision` is already resolved.
        session: the open process groups.

    Raises:
        ConfigError: optim.name is not installed.
    """
    return PipelineEngine(config, session)
