"""Softmax over a vocabulary that comes in parts: blocks of it one after the other, and parts on tensor-parallel ranks.

Each part is exponentiated relative to its own maximum, and the parts are put in proportion once all maxima are known.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# Elements of rows that stay in a CPU's cache while they are exponentiated and added up.
_IN_CACHE = 1 << 17
# What is smaller cannot be seen in an fp32 sum, but 0 could not be divided by.
_SMALLEST = 1e-20


def exponentiate(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Turn fp32 logits (rows, part of the vocabulary) into exponentials relative to each row's maximum, in place.

    Returns:
        The maxima and the sums of the exponentials: (rows,) each.
    """
    top, total = logits.new_empty(len(logits)), logits.new_empty(len(logits))
    for block in _row_blocks(logits):
        part = logits[block]
        torch.amax(part, 1, out=top[block])
        part.sub_(top[block][:, None]).exp_()
        torch.sum(part, 1, out=total[block])
    return top, total


def in_proportion(
    tops: Tensor, totals: Tensor, wanted: Tensor, is_here: Tensor, group: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Put the parts of this rank and of others in proportion; two small collectives.

    Args:
        tops: (parts, rows), of `exponentiate`.
        totals: (parts, rows), of `exponentiate`.
        wanted: (rows,) logit of each target, where this rank has it.
        is_here: (rows,) whether it has.
        group: the tensor-parallel ranks.

    Returns:
        exp(maximum of a part - that of all), (parts, rows), at least 1e-20; the sum of all exponentials, and the target's
        logit, both relative to the maximum of all, (rows,).
    """
    top = tops.amax(0)
    is_cut = dist.get_world_size(group) > 1
    if is_cut:
        dist.all_reduce(top, op=dist.ReduceOp.MAX, group=group)
    ratios = (tops - top).exp_().clamp_(min=_SMALLEST)
    both = torch.stack([(totals * ratios).sum(0), torch.where(is_here, wanted - top, 0.0)])
    if is_cut:
        dist.all_reduce(both, group=group)
    return ratios, both[0], both[1]


def _row_blocks(logits: Tensor) -> Iterator[slice]:
    """Rows that are worked on together: as many as a CPU's cache holds; all elsewhere."""
    rows, width = logits.shape
    size = max(_IN_CACHE // width, 1) if logits.device.type == "cpu" else rows
    return (slice(start, start + size) for start in range(0, rows, size))
