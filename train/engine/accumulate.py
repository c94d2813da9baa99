"""Gradients of bf16 weights, added up in fp32 over the micro-batches at the least cost.

DeepSpeed's BF16_Optimizer keeps an fp32 gradient of every parameter. After each backward pass it converts every bf16
gradient to a temporary fp32 tensor, adds that, and before the next pass sets all of them to zero: 26 bytes per parameter
and micro-batch with the gradient's own. Here a hook adds each gradient as soon as it is there, without a temporary, and
lets go of it: 10 bytes (2 read, 4 read, 4 written), 6 in the first micro-batch, and no bf16 gradient stays. The bits are the
same.

A layer may also add its weight's product straight into the sum (glm/weight_gradient.py); then nothing is left to add.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from glm.weight_gradient import GRAD_READY, HAS_GRAD, MAIN_GRAD


class Accumulation:
    """Attaches the fp32 sums of an optimizer to its parameters.

    Args:
        optimizer: DeepSpeed's BF16_Optimizer. What it does itself after a backward pass finds no gradients.
        on_ready: called with a parameter's group and index whenever its sum has grown.
    """

    def __init__(self, optimizer: Any, on_ready: Callable[[int, int], None] | None = None) -> None:
        self._parameters: list[nn.Parameter] = []
        self._hooks: list[Any] = []
        for group, parameters in enumerate(optimizer.bf16_groups):
            for index, parameter in enumerate(parameters):
                total = optimizer.fp32_groups_gradients[group][index]
                # DeepSpeed's reduction of tied weights, and our norms, read it there.
                parameter._hp_grad = total
                setattr(parameter, MAIN_GRAD, total.view(parameter.shape))
                setattr(parameter, GRAD_READY, _marker(optimizer, group, index, on_ready))
                setattr(parameter, HAS_GRAD, _asker(optimizer, group, index))
                hook = parameter.register_post_accumulate_grad_hook(_add)
                self._hooks.append(hook)
                self._parameters.append(parameter)

    def close(self) -> None:
        """Let go of the sums."""
        for hook in self._hooks:
            hook.remove()
        for parameter in self._parameters:
            for name in (MAIN_GRAD, GRAD_READY, HAS_GRAD):
                delattr(parameter, name)
        self._hooks.clear()
        self._parameters.clear()


@torch.no_grad()
def _add(parameter: torch.Tensor) -> None:
    # A layer has added its product itself, and returned nothing to autograd.
    if parameter.grad is None:
        return
    total: torch.Tensor = getattr(parameter, MAIN_GRAD)
    if getattr(parameter, HAS_GRAD)():
        total.add_(parameter.grad)
    else:
        total.copy_(parameter.grad)
    parameter.grad = None
    getattr(parameter, GRAD_READY)()


def _asker(optimizer: Any, group: int, index: int) -> Callable[[], bool]:
    return lambda: optimizer.fp32_groups_has_gradients[group][index]


def _marker(
    optimizer: Any, group: int, index: int, on_ready: Callable[[int, int], None] | None
) -> Callable[[], None]:
    # The optimizer replaces its lists at every step.
    def mark() -> None:
        optimizer.fp32_groups_has_gradients[group][index] = True
        if on_ready is not None:
            on_ready(group, index)

    return mark
