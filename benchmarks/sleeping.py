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


class Sleeper:
    """Sleeps, and adds up for how long: a sleep ends a little late, and on a busy machine later.

    Args:
        seconds: of a forward pass.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.slept = 0.0

    def sleep(self, passes: int = 1) -> None:
        """Sleep for some forward passes."""
        started = time.perf_counter()
        time.sleep(passes * self._seconds)
        self.slept += time.perf_counter() - started


class Sleep(torch.autograd.Function):
    """Identity that takes its time."""

    @staticmethod
    def forward(ctx: Any, sleeper: Sleeper, hidden: Tensor, *weights: Tensor) -> Tensor:
        """Sleep, and return the hidden states."""
        ctx.sleeper = sleeper
        ctx.weights = weights
        sleeper.sleep()
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Sleep, and return the gradient; that of the weights is zero."""
        ctx.sleeper.sleep(BACKWARD)
        return None, gradients[0], *(torch.zeros_like(weight) for weight in ctx.weights)


def let_entries_sleep(stage: nn.Module, topology: Topology, sleeper: Sleeper) -> None:
    """Replace the forward pass of each entry of a stage; the embedding still looks up.

    Args:
        stage: this rank's part of the model.
        topology: its place.
        sleeper: of all entries.
    """
    for module in stage.modules():
        if isinstance(module, GLMLayer | FinalNorm):
            module.forward = functools.partial(_slept, sleeper, list(module.parameters()), None)
        elif isinstance(module, WordEmbedding) and topology.is_first_stage:
            module.forward = functools.partial(_slept, sleeper, [], module.forward)


def _slept(
    sleeper: Sleeper,
    weights: list[Tensor],
    computed: Callable[[tuple[Tensor, Tensor]], tuple[Tensor, Tensor]] | None,
    inputs: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    hidden, fields = computed(inputs) if computed is not None else inputs
    return Sleep.apply(sleeper, hidden, *weights), fields
