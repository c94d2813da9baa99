"""Attention within segments on CPU, without masks: what is computed are the pairs that may attend, and no others.

All tokens of a segment attend to its context, and its targets also to the targets up to themselves. So a segment takes two
calls of PyTorch's flash kernel: all tokens x context, and targets x targets, causal. Both return the logarithm of the sum of
their exponentials (LSE), by which a target's two results are merged. The backward kernel computes weights as exp(score -
LSE); given the merged result and LSE, each call returns its part of the gradients.

The kernel is called directly, since autograd offers no access to the LSE, and would fill a whole tensor with zeros for each
slice of queries, keys and values.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor

from glm.row_plan import RowSegment

# N heads of this rank, S seq, H head size; rows come one at a time, so the batch is 1.


def segments_attention(
    q_BNSH: Tensor, k_BNSH: Tensor, v_BNSH: Tensor, spans: Iterable[RowSegment]
) -> Tensor:
    """Attend within segments.

    Args:
        q_BNSH: queries, on CPU, fp32 or bf16; softmax is in fp32.
        k_BNSH: keys.
        v_BNSH: values.
        spans: the segments of all rows; row 0 is the first of these.

    Returns:
        The shape of `q_BNSH`; zeros at padding.
    """
    return _Segments.apply(q_BNSH, k_BNSH, v_BNSH, tuple(spans))


class _Segments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, spans: tuple[RowSegment, ...]) -> Tensor:
        mixed = torch.zeros_like(q)
        lse = q.new_zeros(q.shape[:3], dtype=torch.float32)
        for span in spans:
            row, whole, context, targets = _slices(span)
            if span.split > span.start:
                mixed[row, :, whole], lse[row, :, whole] = _forward(
                    q[row, :, whole], k[row, :, context], v[row, :, context], False
                )
            if span.stop > span.split:
                own, own_lse = _forward(
                    q[row, :, targets], k[row, :, targets], v[row, :, targets], True
                )
                if span.split > span.start:
                    own, own_lse = _merged(
                        mixed[row, :, targets], lse[row, :, targets], own, own_lse
                    )
                mixed[row, :, targets], lse[row, :, targets] = own, own_lse
        ctx.save_for_backward(q, k, v, mixed, lse)
        ctx.spans = spans
        return mixed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, mixed, lse = ctx.saved_tensors
        of_mixed = gradients[0]
        of_q, of_k, of_v = (torch.zeros_like(values) for values in (q, k, v))
        for span in ctx.spans:
            row, whole, context, targets = _slices(span)
            if span.split > span.start:
                of_q[row, :, whole], of_k[row, :, context], of_v[row, :, context] = _backward(
                    *(values[row, :, whole] for values in (of_mixed, q)),
                    *(values[row, :, context] for values in (k, v)),
                    *(values[row, :, whole] for values in (mixed, lse)),
                    False,
                )
            if span.stop > span.split:
                of_targets, of_k[row, :, targets], of_v[row, :, targets] = _backward(
                    *(values[row, :, targets] for values in (of_mixed, q, k, v, mixed, lse)), True
                )
                of_q[row, :, targets] += of_targets
        return of_q, of_k, of_v, None


def _slices(span: RowSegment) -> tuple[slice, slice, slice, slice]:
    """Row, all tokens, context and targets of a segment."""
    return (
        slice(span.row, span.row + 1),
        slice(span.start, span.stop),
        slice(span.start, span.split),
        slice(span.split, span.stop),
    )


def _forward(q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> tuple[Tensor, Tensor]:
    """Result (1, N, S, H) and LSE (1, N, S) in fp32."""
    kernel = cast(Any, torch.ops.aten._scaled_dot_product_flash_attention_for_cpu)
    return kernel(q, k, v, 0.0, is_causal)


def _backward(
    of_mixed: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mixed: Tensor,
    lse: Tensor,
    is_causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values."""
    kernel = cast(Any, torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward)
    return kernel(of_mixed, q, k, v, mixed, lse, 0.0, is_causal)


def _merged(
    first: Tensor, first_lse: Tensor, second: Tensor, second_lse: Tensor
) -> tuple[Tensor, Tensor]:
    """What one call over both sets of keys would return."""
    lse = torch.logaddexp(first_lse, second_lse)
    share = (second_lse - lse).exp()[..., None]
    return torch.lerp(first.float(), second.float(), share).to(first.dtype), lse
