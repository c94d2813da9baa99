"""Multi-head self-attention of a GLM layer: fused query-key-value, rotary positions, one of three attention paths."""

import torch
from torch import Tensor, nn

from configs.computation import attends_in_fp32, attention_path
from configs.derive import head_size
from configs.schema import AttentionPath, ModelConfig
from glm.attention_paths import flex_attention, reference_attention, sdpa_attention
from glm.deepnorm import beta, xavier_std
from glm.dropout import Dropout, KeptElements
from glm.rotary import split_and_rotate
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
        is_sequence_cut: hidden states are this rank's part of the tokens.
    """

    def __init__(
        self,
        model: ModelConfig,
        layer: int,
        seed: int,
        name: str,
        is_sequence_cut: bool = False,
    ) -> None:
        super().__init__()
        hidden, self._head_size = model.hidden_size, head_size(model)
        self._model = model
        self._num_heads_local = model.num_heads // tp_size()
        self._first_head = tp_rank() * self._num_heads_local
        self._scale_factor = layer + 1
        gain = beta(model.num_layers)
        plain, scaled = xavier_std(hidden, hidden), xavier_std(hidden, hidden, gain)
        rows = [(plain, 2 * self._head_size), (scaled, self._head_size)]
        cut = is_sequence_cut
        self.query_key_value = ColumnLinear(
            hidden, 3 * hidden, seed, f"{name}.query_key_value", rows, cut
        )
        self.dense = RowLinear(hidden, hidden, seed, f"{name}.dense", scaled, cut)
        self._dropout = Dropout(model.attention_dropout, seed, layer, "attention_weights")

    def forward(self, hidden: Tensor, plan: RowPlan) -> Tensor:
        """Attend within segments.

        Args:
            hidden: (tokens, hidden).
            plan: of the rows whose tokens these are.

        Returns:
            (tokens, hidden), without the bias of the output layer.
        """
        model = self._model
        batch, _, seq = plan.fields.shape
        fused = self.query_key_value(hidden)
        path, _ = attention_path(model, hidden.is_cuda)
        dtype = hidden.dtype
        is_half = dtype.itemsize == 2
        if path is AttentionPath.sdpa and is_half and attends_in_fp32(model, hidden.is_cuda):
            dtype = torch.float32
        tables = plan.rotary(self._head_size, model.rope_base, model.rope_2d, model.rope_tables)
        heads = split_and_rotate(
            fused.view(batch * seq, self._num_heads_local, 3 * self._head_size), *tables, dtype
        )
        # In memory the heads of a token stay together: neither here nor below is anything moved.
        q_BNSH, k_BNSH, v_BNSH = (
            values.view(batch, seq, self._num_heads_local, self._head_size).transpose(1, 2)
            for values in heads
        )
        if path is AttentionPath.reference:
            kept = self._kept(plan)
            mixed = reference_attention(q_BNSH, k_BNSH, v_BNSH, plan, self._scale_factor, kept)
        elif path is AttentionPath.flex:
            mixed = flex_attention(q_BNSH, k_BNSH, v_BNSH, plan)
        else:
            mixed = sdpa_attention(q_BNSH, k_BNSH, v_BNSH, plan)
        return self.dense(mixed.transpose(1, 2).reshape(batch * seq, -1).to(hidden.dtype))

    def _kept(self, plan: RowPlan) -> KeptElements | None:
        """Dropout of (B, N, S, S) weights, keyed by the global head."""
        if not self._dropout.is_active:
            return None
        batch, _, seq = plan.fields.shape
        scores, samples = seq * seq, plan.fields[:, SAMPLE, 0]
        first = torch.full_like(samples, self._first_head * scores)
        kept = self._dropout.kept(samples, first, self._num_heads_local * scores)
        return KeptElements(kept.mask.view(batch, -1, seq, seq), kept.probability)
