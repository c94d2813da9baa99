"""LayerNorm with its statistics in fp32, whatever the type of the parameters, and the residual sum before it.

GLM-130B, table 11 and section 2.1. A layer's residual is a normalised tensor, so each norm has two readers: the branch
(attention or feed-forward), and the sum after the branch, in which DeepNorm's alpha scales it. `norm` and `add_norm`
return their result once for each, so that their backward passes add up both gradients while they read them. For the
residual they expect the gradient of alpha times it, which `add` and `add_norm` pass on: no kernel scales it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from glm.dropout import KeptElements
from glm.fused import fused, is_observed
from glm.tensor_parallel import whole_parameter


class LayerNorm(nn.Module):
    """Parameters of a norm over the last axis: weight 1 and bias 0 at the start.

    Args:
        hidden_size: width of the axis.
        epsilon: added to the variance.
        is_partial: the norm is applied to this rank's part of the tokens, or of the heads.
    """

    def __init__(self, hidden_size: int, epsilon: float, is_partial: bool = False) -> None:
        super().__init__()
        self.weight = whole_parameter(torch.ones(hidden_size), is_partial)
        self.bias = whole_parameter(torch.zeros(hidden_size), is_partial)
        self.epsilon = epsilon


def norm(module: LayerNorm, inputs: Tensor, alpha: float = 1.0) -> tuple[Tensor, Tensor]:
    """Normalise (tokens, hidden).

    Args:
        module: the parameters.
        inputs: what is normalised.
        alpha: factor that the sum after the branch applies to the residual.

    Returns:
        The result for the branch, and the same for the residual.
    """
    return _Norm.apply(inputs, module.weight, module.bias, module.epsilon, alpha)


def add_norm(
    module: LayerNorm,
    residual: Tensor,
    branch: Tensor,
    bias: Tensor,
    kept: KeptElements | None,
    alpha: float,
) -> tuple[Tensor, Tensor]:
    """Normalise alpha * residual + Dropout(branch + bias).

    Args:
        module: the parameters of the norm.
        residual: (tokens, hidden), as `norm` or `add_norm` returned it for the residual.
        branch: (tokens, hidden), output of a row-parallel layer without its bias.
        bias: (hidden,) of that layer.
        kept: what dropout keeps of the branch; None: everything.
        alpha: DeepNorm's factor; also of the sum that follows.

    Returns:
        The result for the next branch, and the same for the residual.
    """
    mask, probability = (None, 0.0) if kept is None else (kept.mask, kept.probability)
    return _AddNorm.apply(
        residual, branch, bias, mask, probability, alpha, module.weight, module.bias, module.epsilon
    )


def add(
    residual: Tensor, branch: Tensor, bias: Tensor, kept: KeptElements | None, alpha: float
) -> Tensor:
    """Compute alpha * residual + Dropout(branch + bias); arguments as in `add_norm`."""
    mask, probability = (None, 0.0) if kept is None else (kept.mask, kept.probability)
    return _Add.apply(residual, branch, bias, mask, probability, alpha)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, epsilon: float, alpha: float
    ) -> tuple[Tensor, Tensor]:
        normed, mean, inverse = layer_norm(inputs, weight, bias, epsilon)
        ctx.save_for_backward(inputs, mean, inverse, weight, bias)
        ctx.alpha = alpha
        ctx.set_materialize_grads(False)
        return normed, normed.view_as(normed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return (*_norm_backward(gradients, ctx.alpha, *ctx.saved_tensors), None, None)


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        residual: Tensor,
        branch: Tensor,
        bias: Tensor,
        mask: Tensor | None,
        probability: float,
        alpha: float,
        weight: Tensor,
        norm_bias: Tensor,
        epsilon: float,
    ) -> tuple[Tensor, Tensor]:
        summed, normed, mean, inverse = residual_norm(
            residual, branch, bias, mask, probability, alpha, weight, norm_bias, epsilon
        )
        ctx.save_for_backward(summed, mean, inverse, weight, norm_bias, mask)
        ctx.probability, ctx.alpha = probability, alpha
        ctx.set_materialize_grads(False)
        return normed, normed.view_as(normed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        *saved, mask = ctx.saved_tensors
        of_sum, of_weight, of_norm_bias = _norm_backward(gradients, ctx.alpha, *saved)
        of_sums = _sum_backward(of_sum, mask, ctx.probability)
        return (*of_sums, *(None, None, None), of_weight, of_norm_bias, None)


class _Add(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        residual: Tensor,
        branch: Tensor,
        bias: Tensor,
        mask: Tensor | None,
        probability: float,
        alpha: float,
    ) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.probability = probability
        return residual_sum(residual, branch, bias, mask, probability, alpha)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (of_sum,), (mask,) = gradients, ctx.saved_tensors
        return (*_sum_backward(of_sum, mask, ctx.probability), None, None, None)


def _sum_backward(
    of_sum: Tensor, mask: Tensor | None, probability: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of alpha times the residual, of the branch and of its bias."""
    of_branch = of_sum if mask is None else kept_gradient(of_sum, mask, probability)
    return of_sum, of_branch, of_branch.sum(0)


def _norm_backward(
    gradients: tuple[Tensor | None, ...], alpha: float, *saved: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a norm's input, weight and bias, from those of the branch and of alpha times the residual."""
    of_branch, of_residual = gradients
    assert of_branch is not None, "a norm's result feeds a branch or a head"
    if of_branch.device.type == "cpu" and not is_observed():
        return _norm_gradients(of_branch, of_residual, alpha, saved, [True, True, True])
    # Two kernels, since one reduces over rows and the other over columns.
    arguments = (of_branch, of_residual, alpha, *saved)
    return (norm_input_gradient(*arguments), *norm_parameter_gradients(*arguments))


@fused
def layer_norm(
    inputs: Tensor, weight: Tensor, bias: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The normalised tensor, the mean and the inverse deviation of each row."""
    return torch.native_layer_norm(inputs, weight.shape, weight, bias, epsilon)


@fused
def residual_sum(
    residual: Tensor,
    branch: Tensor,
    bias: Tensor,
    mask: Tensor | None,
    probability: float,
    alpha: float,
) -> Tensor:
    """Alpha times the residual, and what dropout keeps of the branch with its bias."""
    branch = branch + bias
    if mask is not None:
        branch = torch.where(mask, branch / (1.0 - probability), 0.0)
    return torch.add(branch, residual, alpha=alpha)


@fused
def residual_norm(
    residual: Tensor,
    branch: Tensor,
    bias: Tensor,
    mask: Tensor | None,
    probability: float,
    alpha: float,
    weight: Tensor,
    norm_bias: Tensor,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The residual sum, and what `layer_norm` makes of it."""
    summed = residual_sum.function(residual, branch, bias, mask, probability, alpha)
    return (summed, *layer_norm.function(summed, weight, norm_bias, epsilon))


@fused
def kept_gradient(gradient: Tensor, mask: Tensor, probability: float) -> Tensor:
    """The gradient of what dropout was applied to."""
    return torch.where(mask, gradient / (1.0 - probability), 0.0)


@fused
def norm_input_gradient(
    of_branch: Tensor, of_residual: Tensor | None, alpha: float, *saved: Tensor
) -> Tensor:
    """The gradient of a norm's input: a reduction over each row."""
    return _norm_gradients(of_branch, of_residual, alpha, saved, [True, False, False])[0]


@fused
def norm_parameter_gradients(
    of_branch: Tensor, of_residual: Tensor | None, alpha: float, *saved: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of a norm's weight and bias: a reduction over all tokens."""
    _, of_weight, of_bias = _norm_gradients(
        of_branch, of_residual, alpha, saved, [False, True, True]
    )
    return of_weight, of_bias


def _norm_gradients(
    of_branch: Tensor,
    of_residual: Tensor | None,
    alpha: float,
    saved: tuple[Tensor, ...],
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    inputs, mean, inverse, weight, bias = saved
    total = of_branch
    if of_residual is not None:
        total = torch.add(of_branch, of_residual, alpha=alpha)
    return torch.ops.aten.native_layer_norm_backward(
        total, inputs, weight.shape, mean, inverse, weight, bias, wanted
    )
