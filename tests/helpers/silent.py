"""Faults that no exception tells of: a flipped bit, and a rank that is slower than its peers."""

import time
from typing import Any

import torch


def flip(integers: torch.Tensor, place: int, bit: int) -> None:
    """Flip one bit of an integer tensor, in place."""
    width = 8 * integers.element_size()
    mask = 1 << bit if bit < width - 1 else -(1 << bit)
    integers[place] = integers[place] ^ mask


def flip_weight(engine: Any, parameter: str) -> None:
    """Flip a low bit of one element of this rank's copy of a parameter."""
    held = {each.name: each.values for each in engine.weights()}
    values = held[parameter].detach().reshape(-1)
    flip(values.view({2: torch.int16, 4: torch.int32}[values.element_size()]), 5, 3)


def slow_down(module: torch.nn.Module, share: float) -> None:
    """Let each layer sleep for a share of what this thread has computed since the sleep before."""
    from glm.layer import GLMLayer

    since = time.thread_time()

    def sleep(*_: object) -> None:
        nonlocal since
        time.sleep(share * (time.thread_time() - since))
        since = time.thread_time()

    for layer in module.modules():
        if isinstance(layer, GLMLayer):
            layer.register_forward_hook(sleep)
            layer.register_full_backward_hook(sleep)
