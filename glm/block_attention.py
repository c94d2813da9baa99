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
            whole, context, targets = _places(span)
            if span.split > span.start:
                mixed[whole], lse[whole] = _forward(q[whole], k[context], v[context], False)
            if span.stop > span.split:
                own = _forward(q[targets], k[targets], v[targets], True)
                if span.split > span.start:
                    own = _merged((mixed[targets], lse[targets]), own)
                mixed[targets], lse[targets] = own
        ctx.save_for_backward(q, k, v, mixed, lse)
        ctx.spans = spans
        return mixed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, mixed, lse = ctx.saved_tensors
        (of_mixed,) = gradients
        of_q, of_k, of_v = (torch.zeros_like(values) for values in (q, k, v))
        for span in ctx.spans:
            whole, context, targets = _places(span)
            if span.split > span.start:
                result = (of_mixed[whole], mixed[whole], lse[whole])
                of_q[whole], of_k[context], of_v[context] = _backward(
                    result, q[whole], k[context], v[context], False
                )
            if span.stop > span.split:
                result = (of_mixed[targets], mixed[targets], lse[targets])
                of_targets, of_k[targets], of_v[targets] = _backward(
                    result, q[targets], k[targets], v[targets], True
                )
                of_q[targets] += of_targets
        return of_q, of_k, of_v, None


_Place = tuple[slice, slice, slice]


def _places(span: RowSegment) -> tuple[_Place, _Place, _Place]:
    """Where all tokens, the context and the targets of a segment are in (B, N, S, H)."""
    row = slice(span.row, span.row + 1)
    return (
        (row, slice(None), slice(span.start, span.stop)),
        (row, slice(None), slice(span.start, span.split)),
        (row, slice(None), slice(span.split, span.stop)),
    )


def _forward(q: Tensor, k: Tensor, v: Tensor, is_causal: bool) -> tuple[Tensor, Tensor]:
    """Result (1, N, S, H) and LSE (1, N, S) in fp32."""
    kernel = cast(Any, torch.ops.aten._scaled_dot_product_flash_attention_for_cpu)
    return kernel(q, k, v, 0.0, is_causal)


def _backward(
    result: tuple[Tensor, Tensor, Tensor], q: Tensor, k: Tensor, v: Tensor, is_causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values, from the result's gradient, the merged result and its LSE."""
    of_mixed, mixed, lse = result
    kernel = cast(Any, torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward)
    return kernel(of_mixed, q, k, v, mixed, lse, 0.0, is_causal)


def _merged(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """What one call over both sets of keys would return."""
    (mixed, lse), (other, other_lse) = first, second
    total = torch.logaddexp(lse, other_lse)
    share = (other_lse - total).exp()[..., None]
    return torch.lerp(mixed.float(), other.float(), share).to(mixed.dtype), total
