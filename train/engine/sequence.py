"""Gradients of what every tensor-parallel rank applied to its own part of the tokens, or of the heads.

Norms and the biases of row-parallel layers are whole on every rank, but with sequence parallelism (`parallel.sequence`)
each rank's gradient covers only its tokens; that of the norms of queries and keys (`model.qk_norm`) always covers only
its heads. They are summed once a step, after the last micro-batch and before replicas are reduced. Korthikanti et al.
2022, section 4.2.2.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from glm.tensor_parallel import has_partial_gradient
from train.engine.gradients import whole_gradient
from train.engine.reduction import replace_reduction


def sum_partial_gradients_first(engine: Any, module: nn.Module, group: Any) -> None:
    """Have DeepSpeed's engine sum partial gradients over the tensor-parallel ranks before it reduces gradients.

    Args:
        engine: DeepSpeed's pipeline engine.
        module: this rank's stage.
        group: the tensor-parallel ranks.
    """
    partial = [parameter for parameter in module.parameters() if has_partial_gradient(parameter)]
    if not partial:
        return

    def sum_then_reduce(reduce_gradients: Callable[[], None]) -> None:
        gradients = [whole_gradient(parameter) for parameter in partial]
        sum_together([gradient for gradient in gradients if gradient is not None], group)
        reduce_gradients()

    replace_reduction(engine, sum_then_reduce)


def sum_together(gradients: list[Tensor], group: Any) -> None:
    """Sum small tensors over the ranks in one collective, in place."""
    if not gradients:
        return
    together = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(together, group=group)
    sizes = [gradient.numel() for gradient in gradients]
    for gradient, summed in zip(gradients, together.split(sizes), strict=True):
        gradient.copy_(summed.view_as(gradient))
