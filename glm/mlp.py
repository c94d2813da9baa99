"""GeGLU feed-forward: out((x W_value) * GELU(x W_gate)), with the exact (erf) GELU.

The two halves are separate matrices, so that any tensor-parallel cut is a plain cut of rows, but one product in
parallel: their input's gradient is summed over the ranks once. GLM-130B, appendix B.2; in the released weights the gate
is the second half of one matrix.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from glm.deepnorm import xavier_std
from glm.fused import fused
from glm.tensor_parallel import ColumnLinear, RowLinear, column_linear


class GeGLU(nn.Module):
    """Feed-forward of one layer.

    Args:
        hidden_size: width outside.
        ffn_size: width inside.
        input_gain: of the initial weights of value and gate (glm/gains.py).
        output_gain: of those of the last matrix.
        seed: seed of the initial weights.
        name: name of this module, the prefix of its parameters' names.
        is_sequence_cut: the input is this rank's part of the tokens.
    """

    def __init__(
        self,
        hidden_size: int,
        ffn_size: int,
        input_gain: float,
        output_gain: float,
        seed: int,
        name: str,
        is_sequence_cut: bool = False,
    ) -> None:
        super().__init__()
        rows = [(xavier_std(hidden_size, ffn_size, input_gain), 1)]
        std = xavier_std(ffn_size, hidden_size, output_gain)
        cut = is_sequence_cut
        self.dense_value = ColumnLinear(
            hidden_size, ffn_size, seed, f"{name}.dense_value", rows, cut
        )
        self.dense_gate = ColumnLinear(hidden_size, ffn_size, seed, f"{name}.dense_gate", rows, cut)
        self.dense_out = RowLinear(ffn_size, hidden_size, seed, f"{name}.dense_out", std, cut)

    def forward(self, hidden: Tensor) -> Tensor:
        """Apply the feed-forward to (tokens, hidden), but for the bias of the last matrix; the shape stays."""
        value, gate = column_linear(hidden, [self.dense_value, self.dense_gate])
        return self.dense_out(_GeGLU.apply(value, gate))


class _GeGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, gate: Tensor) -> Tensor:
        ctx.save_for_backward(value, gate)
        return geglu(value, gate)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        return geglu_gradients(gradients[0], *ctx.saved_tensors)


@fused
def geglu(value: Tensor, gate: Tensor) -> Tensor:
    """The gated value."""
    return functional.gelu(gate).mul_(value)


@fused
def geglu_gradients(gradient: Tensor, value: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of value and gate; GELU is computed again rather than kept."""
    of_gate = torch.ops.aten.gelu_backward(gradient * value, gate)
    return functional.gelu(gate).mul_(gradient), of_gate
