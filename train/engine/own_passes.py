"""A step whose passes are ours and whose end is DeepSpeed's: what schedules other than DeepSpeed's have in common."""

import contextlib
from collections.abc import Iterator
from types import MethodType
from typing import Any

from deepspeed.runtime.pipe.schedule import OptimizerStep, ReduceGrads, ReduceTiedGrads


@contextlib.contextmanager
def own_passes(engine: Any) -> Iterator[None]:
    """Run forward and backward passes within it; then tied weights and replicas are reduced, and the engine updates.

    Args:
        engine: DeepSpeed's pipeline engine.
    """
    engine.module.train()
    # So that DeepSpeed's hooks take the backward passes for those of its own schedule.
    engine._running_engine_backward = True
    try:
        yield
    finally:
        engine._running_engine_backward = False
    for instruction in (ReduceTiedGrads, ReduceGrads, OptimizerStep):
        MethodType(engine._INSTRUCTION_MAP[instruction], engine)()
