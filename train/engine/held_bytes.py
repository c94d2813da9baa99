"""Memory of what a rank holds from step to step, counted by the tensors themselves."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from train.engine.gradients import is_sharded
from train.engine.interface import HeldBytes


def held_bytes(module: nn.Module, optimizer: Any) -> HeldBytes:
    """Count the memory of weights, gradients and optimizer, after the backward passes of a step and before its update.

    Args:
        module: this rank's stage.
        optimizer: DeepSpeed's wrapper, or torch's optimizer.
    """
    seen: set[int] = set()
    weights = _new_bytes(module.parameters(), seen)
    gradients = _new_bytes(_gradients(module, optimizer), seen)
    if is_sharded(optimizer):
        # What is left is this replica's share; every parameter had a gradient of its own until it was reduced.
        whole = sum(each.numel() * each.element_size() for each in module.parameters())
        gradients = max(gradients, whole)
    return HeldBytes(weights, gradients, _new_bytes(_optimizer_tensors(optimizer), seen))


def _new_bytes(tensors: Iterable[Tensor], seen: set[int]) -> int:
    """Bytes of the memory below these tensors, without memory that is in `seen`; it is added there."""
    total = 0
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total += storage.nbytes()
    return total


def _gradients(module: nn.Module, optimizer: Any) -> Iterable[Tensor]:
    for parameter in module.parameters():
        if parameter.grad is not None:
            yield parameter.grad
    # BF16_Optimizer's fp32 sums.
    yield from getattr(optimizer, "fp32_groups_gradients_flat", ())
    if is_sharded(optimizer):
        for group in optimizer.averaged_gradients.values():
            yield from group or ()


def _optimizer_tensors(optimizer: Any) -> Iterable[Tensor]:
    inner = getattr(optimizer, "optimizer", optimizer)
    for group in inner.param_groups:
        yield from group["params"]
    for slots in inner.state.values():
        yield from (each for each in slots.values() if isinstance(each, Tensor))
