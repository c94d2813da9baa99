"""The instructions of DeepSpeed's engine as parts of a step (train/parts.py)."""

from typing import Any

from deepspeed.runtime.pipe import schedule

from train.parts import BACKWARD, BUBBLE, COMMUNICATION, DATA, FORWARD, OPTIMIZER, marked

_PARTS = {
    schedule.LoadMicroBatch: DATA,
    schedule.ForwardPass: FORWARD,
    schedule.BackwardPass: BACKWARD,
    schedule.RecvActivation: BUBBLE,
    schedule.RecvGrad: BUBBLE,
    schedule.SendActivation: COMMUNICATION,
    schedule.SendGrad: COMMUNICATION,
    schedule.ReduceTiedGrads: COMMUNICATION,
    schedule.ReduceGrads: COMMUNICATION,
    schedule.OptimizerStep: OPTIMIZER,
}


def mark_instructions(engine: Any) -> None:
    """Mark each instruction that the engine runs as the part of a step that it is.

    Args:
        engine: DeepSpeed's pipeline engine, whose instructions are not replaced afterwards.
    """
    engine._INSTRUCTION_MAP = {
        instruction: marked(_PARTS[instruction], function)
        for instruction, function in engine._INSTRUCTION_MAP.items()
    }
