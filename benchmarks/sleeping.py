"""Layers that sleep instead of computing, so that two cores show how four stages wait for each other.

Everything else is real: the engine, its schedules, its hooks, the transfers of tiny tensors. An entry of the layer list
sleeps in its forward pass, and twice as long in its backward pass, where it gives its weights gradients of zero. As in
configs/derive.py, embedding and head count as a layer: the final norm, which is always with the head, sleeps for it.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.bubbles import BACKWARD
from glm.embedding import WordEmbedding
from glm.layer import FinalNorm, GLMLayer
from train.topology import Topology


class Sleep(torch.autograd.Function):
    """Identity that takes its time."""

    @staticmethod
    def forward(ctx: Any, seconds: float, hidden: Tensor, *weights: Tensor) -> Tensor:
        """Sleep, and return the hidden states."""
        ctx.seconds = seconds
        ctx.weights = weights
        time.sleep(seconds)
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Sleep, and return the gradient; that of the weights is zero."""
        time.sleep(BACKWARD * ctx.seconds)
        return None, gradients[0], *(torch.zeros_like(weight) for weight in ctx.weights)


def let_entries_sleep(stage: nn.Module, topology: Topology, seconds: float) -> None:
    """Replace the forward pass of each entry of a stage; the embedding still looks up.

    Args:
        stage: this rank's part of the model.
        topology: its place.
        seconds: of an entry's forward pass.
    """
    for module in stage.modules():
        if isinstance(module, GLMLayer | FinalNorm):
            module.forward = functools.partial(_slept, seconds, list(module.parameters()), None)
        elif isinstance(module, WordEmbedding) and topology.is_first_stage:
            module.forward = functools.partial(_slept, seconds, [], module.forward)


def _slept(
    seconds: float,
    weights: list[Tensor],
    computed: Callable[[tuple[Tensor, Tensor]], tuple[Tensor, Tensor]] | None,
    inputs: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    hidden, fields = computed(inputs) if computed is not None else inputs
    return Sleep.apply(seconds, hidden, *weights), fields
