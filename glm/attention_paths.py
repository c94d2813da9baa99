"""Three ways to compute the same attention: a reference to read, and two fast ones.

- reference: scores materialised, softmax in FP32 with query-key layer scaling. FP32 softmax was the fix that made
  GLM-130B train (section 3; appendix F, May 2022).
- sdpa: PyTorch's fused kernels, called once per block that can be non-zero. Packed rows are folded, so that four
  windows of 512 do not cost as much as a mask of 2048; a long row is computed as context x context and targets x all.
- flex: FlexAttention, compiled to a block-sparse kernel from the segment structure. CUDA only: it has no backward
  pass on CPU.

All take q, k, v as (batch, heads_local, seq, head) and return the same shape. The output at padding is finite, and no
gradient flows back from it.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from torch.nn.attention.flex_attention import flex_attention as _flex_attention

from glm.row_fields import CONTEXT, SEGMENT
from glm.row_plan import RowPlan, RowSegment

# B batch, N heads of this rank, S seq, H head size


def reference_attention(
    q_BNSH: Tensor,
    k_BNSH: Tensor,
    v_BNSH: Tensor,
    plan: RowPlan,
    scale_factor: float = 1.0,
    drop: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Attention as written in the paper.

    Args:
        q_BNSH: queries.
        k_BNSH: keys.
        v_BNSH: values.
        plan: who may attend to whom.
        scale_factor: query-key layer scaling c: q is divided by sqrt(H) c before the product, which keeps fp16 scores
            in range, and the scores are multiplied by c in FP32. Mathematically this changes nothing.
        drop: applied to the attention weights.
    """
    q_BNSH = q_BNSH / (q_BNSH.shape[-1] ** 0.5 * scale_factor)
    scores_BNSS = torch.matmul(q_BNSH, k_BNSH.transpose(-1, -2)).float() * scale_factor
    scores_BNSS = scores_BNSS.masked_fill(~plan.attention_mask, torch.finfo(torch.float32).min)
    weights_BNSS = scores_BNSS.softmax(dim=-1).to(v_BNSH.dtype)
    if drop is not None:
        weights_BNSS = drop(weights_BNSS)
    return torch.matmul(weights_BNSS, v_BNSH)


def sdpa_attention(q_BNSH: Tensor, k_BNSH: Tensor, v_BNSH: Tensor, plan: RowPlan) -> Tensor:
    """Attention by torch's scaled_dot_product_attention over the blocks that are not empty."""
    folds = plan.folded_rows
    parts: dict[int, Tensor] = {}
    for fold in set(folds.values()):
        rows = [row for row, row_fold in folds.items() if row_fold == fold]
        index = torch.tensor(rows, device=q_BNSH.device)
        mixed = _folded(
            q_BNSH[index], k_BNSH[index], v_BNSH[index], plan.folded_mask(index, fold), fold
        )
        parts.update(zip(rows, mixed.unbind(), strict=True))
    for row in range(len(q_BNSH)):
        if row not in parts:
            spans = [span for span in plan.spans if span.row == row]
            parts[row] = _row(q_BNSH[row], k_BNSH[row], v_BNSH[row], spans)
    return torch.stack([parts[row] for row in range(len(q_BNSH))])


def flex_attention(q_BNSH: Tensor, k_BNSH: Tensor, v_BNSH: Tensor, plan: RowPlan) -> Tensor:
    """Attention by FlexAttention with the rows' block mask."""
    run = _compiled_flex() if q_BNSH.is_cuda else _flex_attention
    mixed = run(
        q_BNSH.contiguous(), k_BNSH.contiguous(), v_BNSH.contiguous(), block_mask=block_mask(plan)
    )
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
        windows = values.reshape(batch, heads, fold, seq // fold, size).transpose(1, 2)
        return windows.reshape(batch * fold, heads, seq // fold, size)

    mixed = functional.scaled_dot_product_attention(split(q), split(k), split(v), attn_mask=mask)
    mixed = mixed.view(batch, fold, heads, seq // fold, size).transpose(1, 2)
    return mixed.reshape(batch, heads, seq, size)


def _row(q: Tensor, k: Tensor, v: Tensor, spans: list[RowSegment]) -> Tensor:
    """Attend within the segments of one row (N, S, H), each in two blocks; padding gives zeros."""
    pieces, place = [], 0
    for span in spans:
        pieces.append(torch.zeros_like(q[:, place : span.start]))
        pieces += _segment(q, k, v, span)
        place = span.stop
    pieces.append(torch.zeros_like(q[:, place:]))
    return torch.cat(pieces, dim=1)


def _segment(q: Tensor, k: Tensor, v: Tensor, span: RowSegment) -> list[Tensor]:
    start, split, stop = span.start, span.split, span.stop
    pieces = []
    if split > start:
        context = (q[None, :, start:split], k[None, :, start:split], v[None, :, start:split])
        pieces.append(functional.scaled_dot_product_attention(*context)[0])
    if stop > split:
        # Targets see the whole context and the targets up to themselves.
        mask = torch.ones(stop - split, stop - start, dtype=torch.bool, device=q.device)
        mask = mask.tril(diagonal=split - start)
        target = (q[None, :, split:stop], k[None, :, start:stop], v[None, :, start:stop])
        pieces.append(functional.scaled_dot_product_attention(*target, attn_mask=mask)[0])
    return pieces
