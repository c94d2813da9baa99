"""LayerNorm with its statistics in fp32, whatever the type of the parameters. GLM-130B, table 11.

NVIDIA Apex's fused kernel is taken on CUDA where Apex is installed with it; torch's own kernel also accumulates in fp32.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from glm.apex_probe import is_usable


class LayerNorm(nn.Module):
    """Normalise the last axis; weight 1 and bias 0 at the start."""

    def __init__(self, hidden_size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.bias = nn.Parameter(torch.zeros(hidden_size))
        self._epsilon = epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalise (..., hidden); the shape stays."""
        if hidden.is_cuda and _FUSED is not None:
            return _FUSED(hidden, self.weight, self.bias, self.weight.shape, self._epsilon)
        return functional.layer_norm(
            hidden, self.weight.shape, self.weight, self.bias, self._epsilon
        )


def _fused() -> Callable[..., Tensor] | None:
    if not is_usable("fused_layer_norm_cuda", "apex.normalization.fused_layer_norm"):
        return None
    from apex.normalization.fused_layer_norm import fused_layer_norm_affine

    return fused_layer_norm_affine


_FUSED = _fused()
