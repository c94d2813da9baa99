"""Multi-head self-attention of a GLM layer: fused query-key-value, rotary positions, one of three attention paths."""

from collections.abc import Callable

from torch import Tensor, nn

from configs.computation import attention_path
from configs.derive import head_size
from configs.schema import AttentionPath, ModelConfig
from glm.attention_paths import flex_attention, reference_attention, sdpa_attention
from glm.deepnorm import beta, xavier_std
from glm.dropout import Dropout
from glm.rotary import rotate
from glm.row_fields import SAMPLE
from glm.row_plan import RowPlan
from glm.tensor_parallel import ColumnLinear, RowLinear, tp_rank, tp_size

# B batch, S seq, N heads of this rank, H head size


class SelfAttention(nn.Module):
    """Attention of one layer.

    The rows of the fused weight are laid out per head as [query | key | value], so that any tensor-parallel cut is a
    cut between heads.

    Args:
        model: sizes, rotary options, attention path, dropout.
        layer: index of the layer, from 0.
        seed: seed of the initial weights and of dropout.
        name: name of this module, the prefix of its parameters' names.
    """

    def __init__(self, model: ModelConfig, layer: int, seed: int, name: str) -> None:
        super().__init__()
        hidden, self._head_size = model.hidden_size, head_size(model)
        self._model = model
        self._num_heads_local = model.num_heads // tp_size()
        self._first_head = tp_rank() * self._num_heads_local
        self._scale_factor = layer + 1
        gain = beta(model.num_layers)
        plain, scaled = xavier_std(hidden, hidden), xavier_std(hidden, hidden, gain)
        rows = [(plain, 2 * self._head_size), (scaled, self._head_size)]
        self.query_key_value = ColumnLinear(
            hidden, 3 * hidden, seed, f"{name}.query_key_value", rows
        )
        self.dense = RowLinear(hidden, hidden, seed, f"{name}.dense", scaled)
        self._dropout = Dropout(model.attention_dropout, seed, layer, "attention_weights")

    def forward(self, hidden: Tensor, fields: Tensor) -> Tensor:
        """Attend within segments.

        Args:
            hidden: (batch, seq, hidden).
            fields: (batch, 6, seq).

        Returns:
            (batch, seq, hidden).
        """
        model, plan = self._model, RowPlan.of(fields)
        batch, seq, _ = hidden.shape
        fused = self.query_key_value(hidden)
        fused = fused.view(batch, seq, self._num_heads_local, 3 * self._head_size).transpose(1, 2)
        q_BNSH, k_BNSH, v_BNSH = fused.chunk(3, dim=-1)
        tables = plan.rotary(self._head_size, model.rope_base, model.rope_2d, model.rope_tables)
        q_BNSH, k_BNSH = rotate(q_BNSH, *tables), rotate(k_BNSH, *tables)
        path, _ = attention_path(model, hidden.is_cuda)
        if path is AttentionPath.reference:
            mixed = reference_attention(
                q_BNSH, k_BNSH, v_BNSH, plan, self._scale_factor, self._drop(fields)
            )
        elif path is AttentionPath.flex:
            mixed = flex_attention(q_BNSH, k_BNSH, v_BNSH, plan)
        else:
            mixed = sdpa_attention(q_BNSH, k_BNSH, v_BNSH, plan)
        return self.dense(mixed.transpose(1, 2).reshape(batch, seq, -1))

    def _drop(self, fields: Tensor) -> Callable[[Tensor], Tensor]:
        """Dropout of (B, N, S, S) weights, keyed by the global head."""
        seq = fields.shape[-1]
        first = self._first_head * seq * seq
        return lambda weights: self._dropout(weights, fields[:, SAMPLE, 0], first)
