"""The tied head and the cross-entropy in one function that never holds all logits, nor a second gradient of the matrix.

The weight of each target's loss is known before its logits are. So a chunk of targets is finished at once: logits,
softmax statistics in fp32, losses, and the gradients of the chunk's rows and of the matrix, which are only scaled in the
backward pass. On CPU the first `hidden` targets take one pass instead of several chunks (glm/head_in_place.py). What is held is one chunk's logits and one fp32 matrix, into which every chunk adds its product
(`torch.addmm` in place, with the embedding gradient shrink as its factor).

Half precision loses nothing to the chunks: their products are added up in fp32, and join the weight's fp32 sum
(glm/weight_gradient.py) or are rounded once, at the end. Without gradients (evaluation) only the losses are computed.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

from configs.computation import head_rows_at_once, head_rows_in_place
from glm.embedding import WordEmbedding
from glm.exponentials import exponentiate, in_proportion
from glm.head_in_place import losses_and_gradients
from glm.weight_gradient import add_product, main_grad_of, tell_ready

# In half precision PyTorch's CPU products are generated for each shape when it first occurs, which takes as long as the
# products themselves; the number of targets differs in every micro-batch, so it is rounded up, with zeros.
_ROWS_OF_A_SHAPE = 64


def target_losses(
    embedding: WordEmbedding, rows: Tensor, targets: Tensor, factors: Tensor, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each target, and their weighted sum.

    Args:
        embedding: the tied module; every tensor-parallel rank holds its rows of the matrix.
        rows: (targets, hidden), after the final norm.
        targets: (targets,) global ids.
        factors: (targets,) fp32, weight of each target in the sum.
        scale: factor that the backward pass is expected to bring (fp16's loss scale): gradients in half precision are
            computed with it, so that small ones do not vanish.

    Returns:
        The sum, fp32, which has gradients to rows and matrix; the losses, (targets,) fp32, which have none.
    """
    head = embedding.word_embeddings
    place = (head.first_row, head.group)
    weight = embedding.weight
    if not torch.is_grad_enabled() or not (rows.requires_grad or weight.requires_grad):
        losses, _, _ = _chunks(rows, weight, targets, None, 1.0, place)
        return torch.dot(losses, factors), losses
    apply: Any = _HeadLoss.apply
    return apply(rows, weight, targets, factors, embedding.gradient_shrink, scale, place)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        weight: Tensor,
        targets: Tensor,
        factors: Tensor,
        shrink: float,
        scale: float,
        place: tuple[int, Any],
    ) -> tuple[Tensor, Tensor]:
        losses, ctx.of_rows, ctx.of_weight = _chunks(
            rows, weight, targets, factors * scale, shrink, place
        )
        ctx.weight, ctx.scale = weight, scale
        ctx.mark_non_differentiable(losses)
        return torch.dot(losses, factors), losses

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        of_rows, of_weight = ctx.of_rows, ctx.of_weight
        assert of_rows is not None, "the gradients are scaled in place, so once"
        ctx.of_rows = ctx.of_weight = None
        factor = gradients[0] / ctx.scale
        of_rows.mul_(factor)
        main_grad = main_grad_of(ctx.weight)
        if main_grad is not None:
            main_grad.addcmul_(of_weight, factor)
            tell_ready(ctx.weight)
            return of_rows, *(None,) * 6
        return of_rows, of_weight.mul_(factor).to(ctx.weight.dtype), *(None,) * 5


def _chunks(
    rows: Tensor,
    weight: Tensor,
    targets: Tensor,
    factors: Tensor | None,
    shrink: float,
    place: tuple[int, Any],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Losses, and the gradients of rows and matrix (in fp32) where the loss has `factors`."""
    first, group = place
    is_half = rows.dtype != torch.float32
    count = len(rows)
    if is_half and rows.device.type == "cpu":
        extra = -count % _ROWS_OF_A_SHAPE
        rows, targets = pad(rows, (0, 0, 0, extra)), pad(targets, (0, extra))
        factors = None if factors is None else pad(factors, (0, extra))
    losses = rows.new_empty(len(rows), dtype=torch.float32)
    of_rows = of_weight = None
    if factors is not None:
        of_rows = torch.empty_like(rows)
        of_weight = torch.empty_like(weight, dtype=torch.float32)
        if len(rows) == 0:
            of_weight.zero_()
    in_place = 0
    if factors is not None and of_rows is not None and of_weight is not None:
        in_place = head_rows_in_place(len(rows), *weight.shape, on_gpu=rows.device.type != "cpu")
        if in_place:
            these = slice(in_place)
            losses[these], of_rows[these] = losses_and_gradients(
                *(rows[these], weight, targets[these], factors[these]), shrink, place, of_weight
            )
    size = min(head_rows_at_once(*weight.shape), len(rows) - in_place)
    # One chunk's, used by all; two in half precision.
    all_logits = rows.new_empty(size, len(weight))
    all_wide = (
        all_logits.new_empty(all_logits.shape, dtype=torch.float32) if is_half else all_logits
    )
    for start in range(in_place, len(rows), max(size, 1)):
        chunk = slice(start, start + size)
        part = rows[chunk]
        logits, wide = all_logits[: len(part)], all_wide[: len(part)]
        torch.mm(part, weight.t(), out=logits)
        if is_half:
            wide.copy_(logits)
        local = targets[chunk] - first
        is_here = (local >= 0) & (local < len(weight))
        column = local.clamp(0, len(weight) - 1)[:, None]
        wanted = wide.gather(1, column)[:, 0]
        tops, totals = (values[None] for values in exponentiate(wide))
        (ratio,), total, wanted = in_proportion(tops, totals, wanted, is_here, group)
        losses[chunk] = total.log() - wanted
        if factors is None or of_rows is None or of_weight is None:
            continue
        # `wide` holds exponentials above this rank's maximum now: softmax - 1 at the target is `wide` times `share`.
        share = factors[chunk] / total * ratio
        wide.scatter_add_(1, column, torch.where(is_here, -total / ratio, 0.0)[:, None])
        beta = 0.0 if start == 0 else 1.0
        if not is_half:
            # Scaling the narrow side saves a pass over the logits.
            torch.mm(wide, weight, out=of_rows[chunk])
            of_rows[chunk].mul_(share[:, None])
            add_product(of_weight, wide.t(), part * share[:, None], shrink, beta)
        else:
            logits.copy_(wide.mul_(share[:, None]))
            torch.mm(logits, weight, out=of_rows[chunk])
            add_product(of_weight, logits.t(), part, shrink, beta)
    if of_rows is not None and dist.get_world_size(group) > 1:
        dist.all_reduce(of_rows, group=group)
    return losses[:count], None if of_rows is None else of_rows[:count], of_weight
