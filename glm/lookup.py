"""Rows of a table by index, whose gradients are added where they belong and not in a table of their own.

autograd's gradient of a lookup is a whole table, nearly all of it zeros: 0.9 GB for GLM-130B's embedding on one of four
ranks. Where the gradients of the weight are added up elsewhere in fp32 (glm/weight_gradient.py), only the rows that were
looked up are read and written.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from glm.weight_gradient import main_grad_of, tell_ready


def lookup(rows: Tensor, table: Tensor) -> Tensor:
    """Look rows up.

    Args:
        rows: (count,) int64.
        table: (rows, width), perhaps with a `main_grad`.

    Returns:
        (count, width).
    """
    apply: Any = _Lookup.apply
    return apply(rows, table)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        # Not saved: it would come back as another tensor, without its attributes.
        ctx.table = table
        return functional.embedding(rows, table)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor | None]:
        (rows,) = ctx.saved_tensors
        table: Tensor = ctx.table
        main_grad = main_grad_of(table)
        if main_grad is None:
            return None, torch.ops.aten.embedding_dense_backward(
                gradients[0], rows, len(table), padding_idx=-1, scale_grad_by_freq=False
            )
        main_grad.index_add_(0, rows, gradients[0].to(main_grad.dtype))
        tell_ready(table)
        return None, None
