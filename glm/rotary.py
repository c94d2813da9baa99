"""Rotary position embedding on explicit position ids. Su et al. 2021; GLM-130B, section 2.2 and appendix B.3.

Rotate-half arrangement: pair i of a part of the head is (element i, element i + half of the part). GLM-130B has one
part, the whole head. The 2-D option of GLM's smaller and chat models has two: the first half of each head is turned by
the position, the second by the block position.
"""

from typing import Any

import torch
from torch import Tensor

from configs.schema import RopeTables
from glm.fused import fused


def rotary_tables(
    position_ids: Tensor, size: int, base: float, tables: RopeTables
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles.

    Args:
        position_ids: (...) int64.
        size: width of the part that is turned, even.
        base: of the geometric progression of frequencies.
        tables: fp16 carries frequencies, positions and angles in half precision as the trainer of GLM-130B did,
            which is off by up to 1 rad at position 2047; fp32 is exact.

    Returns:
        Two (..., size / 2) fp32 tensors: one angle for each pair.
    """
    exponents = torch.arange(0, size, 2, device=position_ids.device, dtype=torch.float32) / size
    frequencies = 1.0 / base**exponents
    if tables is RopeTables.fp16:
        angles = position_ids.half()[..., None] * frequencies.half()
    else:
        angles = position_ids.float()[..., None] * frequencies
    return angles.cos().float(), angles.sin().float()


def split_and_rotate(
    fused_heads: Tensor, cosines: Tensor, sines: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Take queries, keys and values apart, and turn queries and keys by their positions.

    Args:
        fused_heads: (tokens, heads_local, 3 head): each head as [query | key | value].
        cosines: (tokens, parts, head / parts / 2) fp32.
        sines: the same.
        dtype: of the results; angles are applied in fp32.

    Returns:
        Queries, keys, values: (tokens, heads_local, head) each.
    """
    return _SplitAndRotate.apply(fused_heads, cosines, sines, dtype)


class _SplitAndRotate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, fused_heads: Tensor, cosines: Tensor, sines: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(cosines, sines)
        ctx.dtype = fused_heads.dtype
        return rotated_heads(fused_heads, cosines, sines, dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return rotated_heads_gradient(*gradients, *ctx.saved_tensors, ctx.dtype), None, None, None


@fused
def rotated_heads(
    fused_heads: Tensor, cosines: Tensor, sines: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, the first two turned."""
    queries, keys, values = fused_heads.chunk(3, dim=-1)
    return (
        turned(queries, cosines, sines).to(dtype),
        turned(keys, cosines, sines).to(dtype),
        values.to(dtype).contiguous(),
    )


@fused
def rotated_heads_gradient(
    of_queries: Tensor,
    of_keys: Tensor,
    of_values: Tensor,
    cosines: Tensor,
    sines: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """The gradient of the fused heads: queries' and keys' are turned back."""
    parts = (turned(of_queries, cosines, -sines), turned(of_keys, cosines, -sines), of_values)
    return torch.cat([part.to(dtype) for part in parts], dim=-1)


def turned(values: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn each pair of (tokens, heads, head) by its angle; computed in fp32."""
    tokens, heads, size = values.shape
    parts = cosines.shape[1]
    pairs = values.float().reshape(tokens, heads, parts, 2, size // parts // 2)
    first, second = pairs.unbind(-2)
    cosines, sines = cosines[:, None], sines[:, None]
    both = (first * cosines - second * sines, second * cosines + first * sines)
    return torch.stack(both, dim=-2).view(tokens, heads, size)
