"""GeGLU feed-forward: out((x W_value) * GELU(x W_gate)), with the exact (erf) GELU.

The two halves are separate matrices, so that any tensor-parallel cut is a plain cut of rows. GLM-130B, appendix B.2;
in the released weights the gate is the second half of one matrix.
"""

from torch import Tensor, nn
from torch.nn import functional

from glm.deepnorm import beta, xavier_std
from glm.tensor_parallel import ColumnLinear, RowLinear


class GeGLU(nn.Module):
    """Feed-forward of one layer.

    Args:
        hidden_size: width outside.
        ffn_size: width inside.
        num_layers: depth of the model, for the initial weights.
        seed: seed of the initial weights.
        name: name of this module, the prefix of its parameters' names.
    """

    def __init__(
        self, hidden_size: int, ffn_size: int, num_layers: int, seed: int, name: str
    ) -> None:
        super().__init__()
        std = xavier_std(hidden_size, ffn_size, beta(num_layers))
        rows = [(std, 1)]
        self.dense_value = ColumnLinear(hidden_size, ffn_size, seed, f"{name}.dense_value", rows)
        self.dense_gate = ColumnLinear(hidden_size, ffn_size, seed, f"{name}.dense_gate", rows)
        self.dense_out = RowLinear(ffn_size, hidden_size, seed, f"{name}.dense_out", std)

    def forward(self, hidden: Tensor) -> Tensor:
        """Apply the feed-forward to (batch, seq, hidden); the shape stays."""
        gate = functional.gelu(self.dense_gate(hidden))
        return self.dense_out(self.dense_value(hidden) * gate)
