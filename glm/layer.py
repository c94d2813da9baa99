"""One Transformer layer of GLM-130B: Post-LN with DeepNorm, written as the original code places it.

    h  = LayerNorm_in(x)
    a  = alpha * h + Dropout(Attention(h))
    m  = LayerNorm_post(a)
    x' = alpha * m + Dropout(GeGLU(m))

This is Post-LN with each block's trailing LayerNorm moved to the head of the next block: the residual is the
normalised tensor, the first LayerNorm acts on the word embeddings, and a final LayerNorm follows the last layer.
"""

from torch import Tensor, nn

from configs.schema import ModelConfig
from glm.attention import SelfAttention
from glm.deepnorm import alpha
from glm.dropout import Dropout
from glm.mlp import GeGLU
from glm.norm import LayerNorm
from glm.row_fields import SAMPLE


class GLMLayer(nn.Module):
    """A layer of the list.

    Args:
        model: sizes and options.
        layer: index of the layer, from 0.
        seed: seed of the initial weights and of dropout.
    """

    def __init__(self, model: ModelConfig, layer: int, seed: int) -> None:
        super().__init__()
        name = f"layers.{layer}"
        self._alpha = alpha(model.num_layers)
        self.input_norm = LayerNorm(model.hidden_size, model.layernorm_epsilon)
        self.attention = SelfAttention(model, layer, seed, f"{name}.attention")
        self.post_attention_norm = LayerNorm(model.hidden_size, model.layernorm_epsilon)
        self.mlp = GeGLU(model.hidden_size, model.ffn_size, model.num_layers, seed, f"{name}.mlp")
        self._attention_dropout = Dropout(model.hidden_dropout, seed, layer, "attention_output")
        self._mlp_dropout = Dropout(model.hidden_dropout, seed, layer, "mlp_output")

    def forward(self, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Map (hidden (batch, seq, hidden), fields (batch, 6, seq)) to the same shapes."""
        hidden, fields = inputs
        sample_index = fields[:, SAMPLE, 0]
        hidden = self.input_norm(hidden)
        mixed = self.attention(hidden, fields)
        hidden = self._alpha * hidden + self._attention_dropout(mixed, sample_index)
        hidden = self.post_attention_norm(hidden)
        expanded = self.mlp(hidden)
        hidden = self._alpha * hidden + self._mlp_dropout(expanded, sample_index)
        return hidden, fields


class FinalNorm(nn.Module):
    """The LayerNorm after the last layer: an entry of its own in the list."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.norm = LayerNorm(model.hidden_size, model.layernorm_epsilon)

    def forward(self, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Normalise the hidden states; the fields are passed on."""
        hidden, fields = inputs
        return self.norm(hidden), fields
