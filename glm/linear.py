"""Products of one input with one or several weights that are cut over the tensor-parallel ranks.

The gradient of an input that several weights share is summed over the ranks once, while the gradients of the weights
are computed. With sequence parallelism the input is one rank's part of the tokens: it is gathered for the product, and
the sum of its gradient is scattered again. Korthikanti et al. 2022, section 4.2.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from glm.collectives import finish, start_gather, start_scatter_sum, start_sum
from glm.weight_gradient import add_weight_gradient


def linear(
    inputs: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    group: Any,
    is_sequence_cut: bool = False,
) -> list[Tensor]:
    """Compute y_i = x A_i^T + b_i; the gradient of x is summed over the ranks of `group`.

    Args:
        inputs: (tokens, in); with `is_sequence_cut` this rank's (tokens / ranks, in).
        weights: (out_i, in) each.
        biases: (out_i,) each; None: no bias.
        group: the tensor-parallel ranks; None: nothing is summed.
        is_sequence_cut: gather the input before the product.

    Returns:
        (tokens, out_i) each.
    """
    return list(_Linear.apply(inputs, group, is_sequence_cut, len(weights), *weights, *biases))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        group: Any,
        is_sequence_cut: bool,
        count: int,
        *parameters: Tensor | None,
    ) -> tuple[Tensor, ...]:
        weights, biases = cast(tuple[Tensor, ...], parameters[:count]), parameters[count:]
        ctx.save_for_backward(inputs)
        ctx.weights = (
            weights  # not saved: recomputation would return others, without their `main_grad`
        )
        ctx.group, ctx.is_sequence_cut = group, is_sequence_cut
        ctx.has_bias = [bias is not None for bias in biases]
        whole = finish(start_gather(inputs, group)) if is_sequence_cut else inputs
        pairs = zip(weights, biases, strict=True)
        return tuple(functional.linear(whole, weight, bias) for weight, bias in pairs)

    @staticmethod
    def backward(ctx: Any, *output_gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inputs,), weights = ctx.saved_tensors, ctx.weights
        gradients = [gradient.contiguous() for gradient in output_gradients]
        # Communication runs beside products: the gather beside the first, the sum beside those of the weights.
        gathering = start_gather(inputs, ctx.group) if ctx.is_sequence_cut else (inputs, None)
        summing = None
        if ctx.needs_input_grad[0]:
            start = start_scatter_sum if ctx.is_sequence_cut else start_sum
            summing = start(_input_gradient(gradients, weights), ctx.group)
        whole = finish(gathering)
        products = [
            add_weight_gradient(weight, gradient, whole)
            for weight, gradient in zip(weights, gradients, strict=True)
        ]
        sums = [
            gradient.sum(0) if has_bias else None
            for gradient, has_bias in zip(gradients, ctx.has_bias, strict=True)
        ]
        of_inputs = None if summing is None else finish(summing)
        return (of_inputs, None, None, None, *products, *sums)


def _input_gradient(gradients: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    total = gradients[0] @ weights[0]
    for gradient, weight in zip(gradients[1:], weights[1:], strict=True):
        total.addmm_(gradient, weight)
    return total
