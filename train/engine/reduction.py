"""The reduction of gradients, where something else than DeepSpeed's own takes place."""

from collections.abc import Callable
from typing import Any

from deepspeed.runtime.pipe.schedule import ReduceGrads


def replace_reduction(engine: Any, reduce: Callable[[Callable[[], None]], None]) -> None:
    """Have a function called once a step, after the last backward pass, in place of the engine's reduction.

    Args:
        engine: DeepSpeed's pipeline engine.
        reduce: is given what it replaces, and may call it.
    """
    replaced = engine._INSTRUCTION_MAP[ReduceGrads]

    def instruction(of: Any, **arguments: object) -> None:
        reduce(lambda: replaced(of, **arguments))

    engine._INSTRUCTION_MAP = {**engine._INSTRUCTION_MAP, ReduceGrads: instruction}


def skip_reduction(engine: Any) -> None:
    """Leave gradients where they are, on one replica: DeepSpeed would copy all of them together, and back.

    Args:
        engine: DeepSpeed's pipeline engine, whose optimizer is torch's own or BF16_Optimizer.
    """
    replace_reduction(engine, lambda _: None)
