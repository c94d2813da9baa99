"""The update of an optimizer that nothing is sharded over (`parallel.zero_stage=0`): norm, clip, skip, then step.

ZeRO-1's wrappers do these themselves. Without one DeepSpeed reports no norm, skips no NaN, and clips by a norm that
leaves out the vectors of later stages and counts the tied matrix twice.
"""

import math
from typing import Any

import torch
from torch import nn

from glm.tensor_parallel import partition_dim
from train.distributed import Session
from train.gradients import sum_of_squares
from train.topology import Topology


def guard_update(optimizer: Any, module: nn.Module, session: Session, clip: float) -> None:
    """Have each step of `optimizer` clip first, or change nothing if a gradient is not finite.

    As ZeRO-1's wrappers do, it leaves `_global_grad_norm` and `overflow` behind, where DeepSpeed's engine looks.

    Args:
        optimizer: over this rank's parameters, whose `grad` is the mean over the replicas by then.
        module: this rank's stage.
        session: of all ranks that train the model.
        clip: largest global gradient norm; 0: any.
    """
    update = optimizer.step

    def step(*args: object, **kwargs: object) -> object:
        norm = math.sqrt(session.sum([counted_squares(module, session.topology)])[0])
        optimizer.overflow = not math.isfinite(norm)
        optimizer._global_grad_norm = math.inf if optimizer.overflow else norm
        if optimizer.overflow:
            return None
        if clip > 0:
            torch.nn.utils.clip_grads_with_norm_(module.parameters(), clip, torch.tensor(norm))
        return update(*args, **kwargs)

    optimizer.step = step


def counted_squares(module: nn.Module, topology: Topology) -> float:
    """This rank's share of the squared gradient norm: of what several ranks hold, the first one counts.

    Those are all parameters of the other replicas, the tied head's copy, and what tensor parallelism does not cut.
    """
    if topology.dp_rank > 0:
        return 0.0
    return sum(
        sum_of_squares(parameter.grad)
        for parameter in module.parameters()
        if parameter.grad is not None
        and not getattr(parameter, "ds_pipe_replicated", False)
        and (topology.tp_rank == 0 or partition_dim(parameter) is not None)
    )
