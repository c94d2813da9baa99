"""One Transformer layer of GLM-130B: Post-LN with DeepNorm, written as the original code places it.

    h  = LayerNorm_in(x)
    a  = alpha * h + Dropout(Attention(h))
    m  = LayerNorm_post(a)
    x' = alpha * m + Dropout(GeGLU(m))

This is Post-LN with each block's trailing LayerNorm moved to the head of the next block: the residual is the
normalised tensor, the first LayerNorm acts on the word embeddings, and a final LayerNorm follows the last layer.

`model.norm=post` is the same layer with alpha 1 and plain initial weights (glm/gains.py): textbook Post-LN, but for the
first LayerNorm. The other variants are in glm/pre_norm.py.
"""

from torch import Tensor, nn

from configs.schema import ModelConfig
from glm.attention import SelfAttention
from glm.dropout import Dropout, KeptElements
from glm.gains import gains_of
from glm.mlp import GeGLU
from glm.norm import LayerNorm, add, add_norm, norm
from glm.row_plan import RowPlan


class GLMLayer(nn.Module):
    """A layer of the list.

    Args:
        model: sizes and options.
        layer: index of the layer, from 0.
        seed: seed of the initial weights and of dropout.
        is_sequence_cut: hidden states are this rank's part of the tokens.
    """

    def __init__(
        self, model: ModelConfig, layer: int, seed: int, is_sequence_cut: bool = False
    ) -> None:
        super().__init__()
        name, hidden_size, gains = f"layers.{layer}", model.hidden_size, gains_of(model)
        self._alpha = gains.residual
        self._hidden_size = hidden_size
        self.input_norm = LayerNorm(hidden_size, model.layernorm_epsilon, is_sequence_cut)
        self.attention = SelfAttention(model, layer, seed, f"{name}.attention", is_sequence_cut)
        self.post_attention_norm = LayerNorm(hidden_size, model.layernorm_epsilon, is_sequence_cut)
        self.mlp = GeGLU(
            *(hidden_size, model.ffn_size, gains.ffn_input, gains.ffn_output),
            *(seed, f"{name}.mlp", is_sequence_cut),
        )
        self._attention_dropout = Dropout(model.hidden_dropout, seed, layer, "attention_output")
        self._mlp_dropout = Dropout(model.hidden_dropout, seed, layer, "mlp_output")

    def forward(self, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Map (hidden (tokens, hidden), fields (batch, 6, seq)) to the same shapes."""
        hidden, fields = inputs
        plan = RowPlan.of(fields)
        normed, residual = norm(self.input_norm, hidden, self._alpha)
        mixed = self.attention(normed, plan)
        kept = self._kept(self._attention_dropout, hidden, plan)
        bias = self.attention.dense.bias
        normed, residual = add_norm(
            self.post_attention_norm, residual, mixed, bias, kept, self._alpha
        )
        expanded = self.mlp(normed)
        kept = self._kept(self._mlp_dropout, hidden, plan)
        return add(residual, expanded, self.mlp.dense_out.bias, kept, self._alpha), fields

    def _kept(self, dropout: Dropout, hidden: Tensor, plan: RowPlan) -> KeptElements | None:
        if not dropout.is_active:
            return None
        samples, places = plan.tokens(len(hidden), self.attention.dense.tp_rank)
        return dropout.kept(samples, places * self._hidden_size, self._hidden_size)


class FinalNorm(nn.Module):
    """The LayerNorm after the last layer, in every norm variant: an entry of its own in the list."""

    def __init__(self, model: ModelConfig, is_sequence_cut: bool = False) -> None:
        super().__init__()
        self.norm = LayerNorm(model.hidden_size, model.layernorm_epsilon, is_sequence_cut)

    def forward(self, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Normalise the hidden states; the fields are passed on."""
        hidden, fields = inputs
        return norm(self.norm, hidden)[0], fields
