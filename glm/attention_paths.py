"""Three ways to compute the same attention: a reference to read, and two fast ones; and one that rounds on purpose.

- reference: scores materialised, softmax in FP32 with query-key layer scaling. FP32 softmax was the fix that made
  GLM-130B train (section 3; appendix F, May 2022).
- sdpa: PyTorch's fused kernels, for CPUs. Rows are folded into short windows where they can be, and masked; others are
  attended segment by segment without a mask (glm/block_attention.py). On CUDA such rows take a dense mask instead.
- rounded: the reference without FP32 (`model.softmax_fp32=false`), to see what the FP32 softmax is good for.
- flex: FlexAttention, compiled to a block-sparse kernel from the segment structure. CUDA only: it has no backward
  pass on CPU.

All take q, k, v as (batch, heads_local, seq, head) and return the same shape. The output at padding is finite, and no
gradient flows back from it.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from torch.nn.attention.flex_attention import flex_attention as _flex_attention

from glm.block_attention import segments_attention
from glm.dropout import KeptElements
from glm.fused import fused
from glm.row_fields import CONTEXT, SEGMENT
from glm.row_plan import RowPlan

# B batch, N heads of this rank, S seq, H head size


def reference_attention(
    q_BNSH: Tensor,
    k_BNSH: Tensor,
    v_BNSH: Tensor,
    plan: RowPlan,
    scale_factor: float = 1.0,
    kept: KeptElements | None = None,
) -> Tensor:
    """Attention as written in the paper.

    Args:
        q_BNSH: queries.
        k_BNSH: keys.
        v_BNSH: values.
        plan: who may attend to whom.
        scale_factor: query-key layer scaling c: q is divided by sqrt(H) c before the product, which keeps fp16 scores
            in range, and the scores are multiplied by c in FP32. Mathematically this changes nothing.
        kept: what dropout keeps of the attention weights; None: everything.
    """
    scaled_BNSH = q_BNSH / (q_BNSH.shape[-1] ** 0.5 * scale_factor)
    scores_BNSS = torch.matmul(scaled_BNSH, k_BNSH.transpose(-1, -2))
    keep, probability = (None, 0.0) if kept is None else (kept.mask, kept.probability)
    weights_BNSS = _Softmax.apply(
        scores_BNSS, plan.attention_mask, float(scale_factor), keep, probability
    )
    return torch.matmul(weights_BNSS, v_BNSH)


def rounded_attention(
    q_BNSH: Tensor,
    k_BNSH: Tensor,
    v_BNSH: Tensor,
    plan: RowPlan,
    kept: KeptElements | None = None,
) -> Tensor:
    """Attention whose softmax is computed in the type of its inputs, forward and backward.

    Every operation of the softmax rounds its result: the difference from the maximum, the exponential, their sum, the
    quotient. So they are single kernels: torch's softmax, and a compiled one, would compute in FP32 inside. There is no
    query-key layer scaling, which Megatron-LM allows with an FP32 softmax only; arguments as in `reference_attention`.
    """
    scaled_BNSH = q_BNSH / q_BNSH.shape[-1] ** 0.5
    scores_BNSS = torch.matmul(scaled_BNSH, k_BNSH.transpose(-1, -2))
    lowest = torch.finfo(scores_BNSS.dtype).min
    scores_BNSS = torch.where(plan.attention_mask, scores_BNSS, lowest)
    # What is subtracted changes no gradient.
    highest_BNS1 = scores_BNSS.detach().amax(-1, keepdim=True)
    exponentials_BNSS = (scores_BNSS - highest_BNS1).exp()
    weights_BNSS = exponentials_BNSS / exponentials_BNSS.sum(-1, keepdim=True)
    if kept is not None:
        weights_BNSS = torch.where(kept.mask, weights_BNSS / (1.0 - kept.probability), 0.0)
    return torch.matmul(weights_BNSS, v_BNSH)


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        mask: Tensor,
        factor: float,
        keep: Tensor | None,
        probability: float,
    ) -> Tensor:
        weights, kept_weights = masked_softmax(scores, mask, factor, keep, probability)
        ctx.save_for_backward(weights, keep)
        ctx.factor, ctx.probability = factor, probability
        return kept_weights

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weights, keep = ctx.saved_tensors
        of_scores = masked_softmax_gradient(
            gradients[0], weights, ctx.factor, keep, ctx.probability
        )
        return of_scores, None, None, None, None


@fused
def masked_softmax(
    scores: Tensor, mask: Tensor, factor: float, keep: Tensor | None, probability: float
) -> tuple[Tensor, Tensor]:
    """Softmax over the last axis in FP32 of what may be attended to; before and after dropout."""
    lowest = torch.finfo(torch.float32).min
    wide = torch.where(mask, scores.float() * factor, lowest)
    weights = wide.softmax(dim=-1).to(scores.dtype)
    if keep is None:
        return weights, weights
    return weights, torch.where(keep, weights / (1.0 - probability), 0.0)


@fused
def masked_softmax_gradient(
    gradient: Tensor, weights: Tensor, factor: float, keep: Tensor | None, probability: float
) -> Tensor:
    """The gradient of the scores."""
    if keep is not None:
        gradient = torch.where(keep, gradient / (1.0 - probability), 0.0)
    wide = weights.float() * gradient.float()
    of_scores = wide - weights.float() * wide.sum(dim=-1, keepdim=True)
    return (of_scores * factor).to(weights.dtype)


def sdpa_attention(q_BNSH: Tensor, k_BNSH: Tensor, v_BNSH: Tensor, plan: RowPlan) -> Tensor:
    """Attention by torch's scaled_dot_product_attention: short windows with a mask, the rest segment by segment."""
    parts = []
    for run in plan.runs:
        rows = slice(run.start, run.stop)
        q, k, v = q_BNSH[rows], k_BNSH[rows], v_BNSH[rows]
        if run.fold is not None:
            parts.append(_folded(q, k, v, plan.folded_mask(run, q.dtype), run.fold))
        elif q.device.type == "cpu":
            parts.append(segments_attention(q, k, v, plan.spans_of(run)))
        else:
            parts.append(_folded(q, k, v, plan.attention_mask[rows], 1))
    return parts[0] if len(parts) == 1 else _together(parts)


def flex_attention(q_BNSH: Tensor, k_BNSH: Tensor, v_BNSH: Tensor, plan: RowPlan) -> Tensor:
    """Attention by FlexAttention with the rows' block mask."""
    run = _compiled_flex() if q_BNSH.is_cuda else _flex_attention
    mixed = run(q_BNSH, k_BNSH, v_BNSH, block_mask=block_mask(plan))
    assert isinstance(mixed, Tensor)
    return mixed


def block_mask(plan: RowPlan) -> BlockMask:
    """FlexAttention's mask of a plan, made once per micro-batch."""
    cached = plan.__dict__.get("block_mask")
    if cached is None:
        segment, context = plan.fields[:, SEGMENT], plan.fields[:, CONTEXT]

        def may_attend(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            is_same = segment[b, q] == segment[b, k]
            return is_same & ((context[b, k] == 1) | ((context[b, q] == 0) & (k <= q)))

        batch, _, seq = plan.fields.shape
        device = str(plan.fields.device)
        cached = create_block_mask(may_attend, batch, None, seq, seq, device=device)
        plan.__dict__["block_mask"] = cached
    return cached


@lru_cache(maxsize=1)
def _compiled_flex() -> Callable[..., Tensor]:
    return torch.compile(_flex_attention, dynamic=False)


def _folded(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, fold: int) -> Tensor:
    """Attend within windows: (B, N, S, H) as (B fold, N, S / fold, H), with mask (B fold, 1, window, window)."""
    batch, heads, seq, size = q.shape

    def split(values: Tensor) -> Tensor:
        windows = values.transpose(1, 2).reshape(batch * fold, seq // fold, heads, size)
        return windows.transpose(1, 2)

    mixed = functional.scaled_dot_product_attention(split(q), split(k), split(v), attn_mask=mask)
    return mixed.transpose(1, 2).reshape(batch, seq, heads, size).transpose(1, 2)


def _together(parts: list[Tensor]) -> Tensor:
    """Concatenate (B, N, S, H) whose memory is (B, S, N, H) over B, and keep it so."""
    return torch.cat([part.transpose(1, 2) for part in parts]).transpose(1, 2)
