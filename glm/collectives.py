"""Sums, gathers and scatters over the tensor-parallel ranks, along the tokens; with and without a gradient.

Megatron-core has the same as mappings, for CUDA tensors only.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def start_sum(partial: Tensor, group: Any) -> tuple[Tensor, Any]:
    """Start to add up (tokens, width) over the ranks, in place; returns the sum to be, and what to wait for."""
    if group is None or dist.get_world_size(group) == 1:
        return partial, None
    return partial, dist.all_reduce(partial, group=group, async_op=True)


def start_scatter_sum(partial: Tensor, group: Any) -> tuple[Tensor, Any]:
    """Start to add up (tokens, width) over the ranks; each gets its part of the tokens, (tokens / ranks, width)."""
    tokens, width = partial.shape
    mine = partial.new_empty(tokens // dist.get_world_size(group), width)
    return mine, dist.reduce_scatter_tensor(mine, partial.contiguous(), group=group, async_op=True)


def start_gather(local: Tensor, group: Any) -> tuple[Tensor, Any]:
    """Start to gather all ranks' parts of the tokens; the inverse of a scatter."""
    tokens, width = local.shape
    whole = local.new_empty(tokens * dist.get_world_size(group), width)
    return whole, dist.all_gather_into_tensor(whole, local.contiguous(), group=group, async_op=True)


def finish(started: tuple[Tensor, Any]) -> Tensor:
    """Wait for what a `start_` function began; returns its result."""
    result, work = started
    if work is not None:
        work.wait()
    return result


class Sum(torch.autograd.Function):
    """Add up over the ranks; the gradient of the sum is that of each summand."""

    @staticmethod
    def forward(ctx: Any, partial: Tensor, group: Any) -> Tensor:
        """Sum (tokens, width), which is overwritten; nothing may have kept it for a backward pass."""
        # Not marked as changed: selective recompute keeps this product, and takes the sum for it.
        return finish(start_sum(partial, group))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Pass the gradient on."""
        return gradients[0], None


class ScatterSum(torch.autograd.Function):
    """Add up over the ranks, and keep this rank's part of the tokens."""

    @staticmethod
    def forward(ctx: Any, partial: Tensor, group: Any) -> Tensor:
        """Map (tokens, width) to (tokens / ranks, width)."""
        ctx.group = group
        return finish(start_scatter_sum(partial, group))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Gather the gradient."""
        return finish(start_gather(gradients[0], ctx.group)), None


class Gather(torch.autograd.Function):
    """Gather all tokens; every rank computes the same from them, so each takes its part of the gradient."""

    @staticmethod
    def forward(ctx: Any, local: Tensor, group: Any) -> Tensor:
        """Map (tokens / ranks, width) to (tokens, width)."""
        ctx.group = group
        return finish(start_gather(local, group))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Take this rank's part."""
        parts = gradients[0].chunk(dist.get_world_size(ctx.group))
        return parts[dist.get_rank(ctx.group)].contiguous(), None
