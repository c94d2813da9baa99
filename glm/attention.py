"""Multi-head self-attention of a GLM layer: fused query-key-value, rotary positions, one of three attention paths."""

import torch
from torch import Tensor, nn

from configs.computation import attends_in_fp32, attention_path
from configs.derive import head_size
from configs.schema import AttentionPath, ModelConfig
from glm.attention_paths import (
    flex_attention,
    reference_attention,
    rounded_attention,
    sdpa_attention,
)
from glm.deepnorm import xavier_std
from glm.dropout import Dropout, KeptElements
from glm.fused import is_eager
from glm.gains import gains_of
from glm.norm import LayerNorm, norm
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
        gains = gains_of(model)
        of_value = xavier_std(hidden, hidden, gains.value)
        rows = [(xavier_std(hidden, hidden), 2 * self._head_size), (of_value, self._head_size)]
        cut = is_sequence_cut
        self.query_key_value = ColumnLinear(
            hidden, 3 * hidden, seed, f"{name}.query_key_value", rows, cut
        )
        of_output = xavier_std(hidden, hidden, gains.attention_output)
        self.dense = RowLinear(hidden, hidden, seed, f"{name}.dense", of_output, cut)
        self.query_norm = self.key_norm = None
        if model.qk_norm:
            sizes = (self._head_size, model.layernorm_epsilon, tp_size() > 1)
            self.query_norm, self.key_norm = LayerNorm(*sizes), LayerNorm(*sizes)
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
        if path is AttentionPath.flex and is_eager():  # it needs the compiler
            path = AttentionPath.sdpa
        dtype = hidden.dtype
        is_half = dtype.itemsize == 2
        if path is AttentionPath.sdpa and is_half and attends_in_fp32(model, hidden.is_cuda):
            dtype = torch.float32
        tables = plan.rotary(self._head_size, model.rope_base, model.rope_2d, model.rope_tables)
        fused = fused.view(batch * seq, self._num_heads_local, 3 * self._head_size)
        heads = split_and_rotate(self._normed(fused), *tables, dtype)
        # In memory the heads of a token stay together: neither here nor below is anything moved.
        q_BNSH, k_BNSH, v_BNSH = (
            values.view(batch, seq, self._num_heads_local, self._head_size).transpose(1, 2)
            for values in heads
        )
        if path is AttentionPath.reference:
            kept = self._kept(plan)
            if model.softmax_fp32:
                mixed = reference_attention(q_BNSH, k_BNSH, v_BNSH, plan, self._scale_factor, kept)
            else:
                mixed = rounded_attention(q_BNSH, k_BNSH, v_BNSH, plan, kept)
        elif path is AttentionPath.flex:
            mixed = flex_attention(q_BNSH, k_BNSH, v_BNSH, plan)
        else:
            mixed = sdpa_attention(q_BNSH, k_BNSH, v_BNSH, plan)
        return self.dense(mixed.transpose(1, 2).reshape(batch * seq, -1).to(hidden.dtype))

    def _normed(self, fused_heads: Tensor) -> Tensor:
        """Normalise the queries and keys of (tokens, heads_local, 3 head), each head for itself (`model.qk_norm`)."""
        if self.query_norm is None or self.key_norm is None:
            return fused_heads
        queries, keys, values = fused_heads.chunk(3, dim=-1)
        normed = [
            norm(module, part.reshape(-1, self._head_size))[0].view_as(part)
            for module, part in ((self.query_norm, queries), (self.key_norm, keys))
        ]
        return torch.cat([*normed, values], dim=-1)

    def _kept(self, plan: RowPlan) -> KeptElements | None:
        """Dropout of (B, N, S, S) weights, keyed by the global head."""
        if not self._dropout.is_active:
            return None
        batch, _, seq = plan.fields.shape
        scores, samples = seq * seq, plan.fields[:, SAMPLE, 0]
        first = torch.full_like(samples, self._first_head * scores)
        kept = self._dropout.kept(samples, first, self._num_heads_local * scores)
        return KeptElements(kept.mask.view(batch, -1, seq, seq), kept.probability)
