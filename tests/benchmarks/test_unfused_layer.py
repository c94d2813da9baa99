"""The counter on a layer written in plain operators, whose counts were made by another program.

The layer is that of the 130B shape at tp 4 in bf16, before any of its operators were fused: 2.04 GB in 31 kernels
forward and 2.27 GB backward, outside matrix products and attention.
"""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import glm.attention_paths
from benchmarks.counting.attention import flex_counted_by
from benchmarks.counting.counter import counting

SEQ, HIDDEN, HEADS, SIZE, INNER = 2048, 12288, 96 // 4, 128, 32768 // 4
CUT = HEADS * SIZE


def parameter(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta", requires_grad=True)


def linear(values: Tensor, outputs: int) -> Tensor:
    """The bias is an operator of its own, as in Megatron-core."""
    return functional.linear(values, parameter(outputs, values.shape[-1])) + parameter(outputs)


def norm(values: Tensor) -> Tensor:
    return functional.layer_norm(values, (HIDDEN,), parameter(HIDDEN), parameter(HIDDEN))


def rotate(values: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    wide = values.float()
    first, second = wide.chunk(2, dim=-1)
    return (wide * cosines + torch.cat((-second, first), dim=-1) * sines).to(values.dtype)


def plain_layer(hidden: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    hidden = norm(hidden)
    fused = linear(hidden, 3 * CUT).view(1, SEQ, HEADS, 3 * SIZE).transpose(1, 2)
    q, k, v = fused.chunk(3, dim=-1)
    q, k = rotate(q, cosines, sines), rotate(k, cosines, sines)
    flex = glm.attention_paths._flex_attention
    mixed = flex(q.contiguous(), k.contiguous(), v.contiguous())
    assert isinstance(mixed, Tensor)
    mixed = linear(mixed.transpose(1, 2).reshape(1, SEQ, -1), HIDDEN)
    hidden = norm(11.8 * hidden + mixed)
    inner = linear(hidden, INNER) * functional.gelu(linear(hidden, INNER))
    return 11.8 * hidden + linear(inner, HIDDEN)


def test_the_counts_of_another_program() -> None:
    hidden = parameter(1, SEQ, HIDDEN)
    tables = torch.empty(2, 1, 1, SEQ, SIZE, device="meta")
    with counting() as counter, flex_counted_by(counter):
        output = plain_layer(hidden, *tables)
        forward = counter.take()
        output.backward(torch.empty_like(output))
        backward = counter.take()
    assert forward.other.moved / 1e9 == pytest.approx(2.04, abs=0.005)
    assert forward.other.kernels == 31
    assert backward.other.moved / 1e9 == pytest.approx(2.27, abs=0.005)
    assert forward.products.kernels == 5 and backward.products.kernels == 10
    assert backward.products.flops == 2 * forward.products.flops
