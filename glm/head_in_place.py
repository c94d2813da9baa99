"""Logits that are held in the memory of the matrix's gradient, so that every target passes over the matrix at once.

Up to `hidden` targets have no more logits than the gradient has elements. So the matrix is walked through twice, in blocks of
its rows: first for the logits, which are exponentiated and stay, then, with the sums over the whole vocabulary known, for
the gradients. A block's exponentials lie where the gradient of the next block will be, and are gone when that is written.
On CPU; in chunks of targets (glm/head.py) the matrix and its gradient would be read once a chunk, which costs a fifth at
width 512.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from configs.computation import HEAD_BLOCK
from glm.exponentials import exponentiate, in_proportion
from glm.weight_gradient import add_product


@dataclass
class _Block:
    """Rows [start, stop) of the matrix."""

    start: int
    stop: int
    exponentials: Tensor
    """(targets, stop - start) fp32."""


def losses_and_gradients(
    rows: Tensor,
    weight: Tensor,
    targets: Tensor,
    factors: Tensor,
    shrink: float,
    place: tuple[int, Any],
    of_weight: Tensor,
) -> tuple[Tensor, Tensor]:
    """Compute the loss of every target, and the gradients of rows and matrix.

    Args:
        rows: (targets, hidden), at most `hidden` of them.
        weight: (vocab_local, hidden).
        targets: (targets,) global ids.
        factors: (targets,) fp32, weight of each target in the sum of losses.
        shrink: factor of the matrix's gradient.
        place: id of the matrix's first row, and the tensor-parallel ranks.
        of_weight: (vocab_local, hidden) fp32, contiguous: becomes the matrix's gradient; what it held is lost.

    Returns:
        The losses, (targets,) fp32; the gradient of the rows, in their type, of this rank's part of the vocabulary.
    """
    first, group = place
    blocks = _blocks(of_weight, len(rows))
    is_half = rows.dtype != torch.float32
    widest = max(block.stop - block.start for block in blocks)
    # One block's logits in half precision.
    narrow = rows.new_empty(len(rows) * widest if is_half else 0)
    local = targets - first
    wanted = torch.zeros(len(rows), dtype=torch.float32)
    statistics = []
    for block in blocks:
        logits = block.exponentials
        matrix = weight[block.start : block.stop]
        if is_half:
            rounded = narrow[: logits.numel()].view(logits.shape)
            logits.copy_(torch.mm(rows, matrix.t(), out=rounded))
        else:
            torch.mm(rows, matrix.t(), out=logits)
        is_in_block, column = _columns(local, block)
        wanted = torch.where(is_in_block, logits.gather(1, column)[:, 0], wanted)
        statistics.append(exponentiate(logits))
    tops, totals = (torch.stack(parts) for parts in zip(*statistics, strict=True))
    is_here = (local >= 0) & (local < len(weight))
    ratios, total, wanted = in_proportion(tops, totals, wanted, is_here, group)
    of_rows = torch.zeros(rows.shape, dtype=torch.float32)
    product = torch.empty_like(of_rows)
    for block, ratio in zip(blocks, ratios, strict=True):
        wide, matrix = block.exponentials, weight[block.start : block.stop]
        gradient = of_weight[block.start : block.stop]
        # Softmax - 1 at the target is `wide` times `share`.
        share = (factors / total * ratio)[:, None]
        is_in_block, column = _columns(local, block)
        wide.scatter_add_(1, column, torch.where(is_in_block, -total / ratio, 0.0)[:, None])
        if is_half:
            rounded = narrow[: wide.numel()].view(wide.shape)
            rounded.copy_(wide.mul_(share))
            add_product(of_rows, rounded, matrix)
            add_product(gradient, rounded.t(), rows, shrink, beta=0.0)
        else:
            # Scaling the narrow side saves a pass over the logits.
            of_rows.addcmul_(torch.mm(wide, matrix, out=product), share)
            torch.mm(wide.t(), rows * (share * shrink), out=gradient)
    return total.log() - wanted, of_rows.to(rows.dtype)


def _blocks(of_weight: Tensor, num_targets: int) -> list[_Block]:
    """Blocks of the matrix with the memory of their exponentials: each but the last one's is the next block's gradient.

    Only the first block may be smaller, so that each fits into the next one.
    """
    vocab, hidden = of_weight.shape
    assert 0 < num_targets <= hidden, (num_targets, hidden)
    size = max(min(HEAD_BLOCK // num_targets, vocab), 1)
    starts = [0, *range(vocab % size or size, vocab, size)]
    bounds = list(zip(starts, [*starts[1:], vocab], strict=True))
    memory = [of_weight[start:stop].view(-1) for start, stop in bounds[1:]]
    memory.append(of_weight.new_empty(size * num_targets))
    return [
        _Block(start, stop, held[: num_targets * (stop - start)].view(num_targets, stop - start))
        for (start, stop), held in zip(bounds, memory, strict=True)
    ]


def _columns(local: Tensor, block: _Block) -> tuple[Tensor, Tensor]:
    """Which targets are in a block, and the column of each; that of others is some column."""
    is_in_block = (local >= block.start) & (local < block.stop)
    return is_in_block, (local.clamp(block.start, block.stop - 1) - block.start)[:, None]
