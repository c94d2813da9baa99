"""Word embedding and tied output head, with embedding gradient shrink (EGS). GLM-130B, section 3.

EGS multiplies the embedding's gradient by alpha and leaves its value alone:
    E_used = alpha * E + (1 - alpha) * stop_gradient(E)
written as a function with its own gradient, because the sum above rounds in half precision. It acts on the lookup and
on the tied head, as the run did from 2022-05-29 on. An alpha of 1 (`stability.embedding_shrink=[[0,1.0]]`) is no shrink.

`model.embedding_norm` is the other remedy that GLM-130B's team tried (section 3): a LayerNorm right after the lookup,
before dropout, as in BLOOM (Scao et al. 2022, section 3.2.2).
"""

from typing import Any

import torch
from torch import Tensor, nn

from configs.derive import embedding_init_std, padded_vocab_size
from configs.schema import ModelConfig
from glm.dropout import Dropout, drop
from glm.norm import LayerNorm, norm
from glm.row_fields import TARGET
from glm.row_plan import RowPlan
from glm.tensor_parallel import VocabEmbedding


class ScaleGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by a constant."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: float) -> Tensor:
        """Return `values` unchanged."""
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Scale the gradient."""
        return gradients[0] * ctx.factor, None


class WordEmbedding(nn.Module):
    """The first entry of the model's list and (through `hidden_states`) the last one.

    Args:
        model: sizes and dropout.
        seed: seed of the initial weights and of dropout.
        is_sequence_cut: hidden states are this rank's part of the tokens.
        reads_tokens: True for the first entry, which alone has the embedding's norm; False for a head by itself.
    """

    def __init__(
        self,
        model: ModelConfig,
        seed: int,
        is_sequence_cut: bool = False,
        reads_tokens: bool = False,
    ) -> None:
        super().__init__()
        self.word_embeddings = VocabEmbedding(
            padded_vocab_size(model),
            model.hidden_size,
            seed,
            "word_embeddings",
            embedding_init_std(model),
            is_sequence_cut,
        )
        self.embedding_norm: LayerNorm | None = None
        if model.embedding_norm and reads_tokens:
            self.embedding_norm = LayerNorm(
                model.hidden_size, model.layernorm_epsilon, is_sequence_cut
            )
        self.gradient_shrink = 1.0
        self._dropout = Dropout(model.hidden_dropout, seed, -1, "embedding")

    @property
    def weight(self) -> nn.Parameter:
        """This rank's rows of the embedding matrix: (vocab_local, hidden)."""
        return self.word_embeddings.weight

    def forward(self, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Map (tokens (batch, seq), fields (batch, 6, seq)) to (hidden (tokens, hidden), fields)."""
        tokens, fields = inputs
        table = self.word_embeddings
        hidden = ScaleGradient.apply(table(tokens.reshape(-1)), self.gradient_shrink)
        if self.embedding_norm is not None:
            hidden = norm(self.embedding_norm, hidden)[0]
        if self._dropout.is_active:
            samples, places = RowPlan.of(fields).tokens(len(hidden), table.tp_rank)
            width = hidden.shape[-1]
            hidden = drop(hidden, self._dropout.kept(samples, places * width, width))
        return hidden, fields


def hidden_states(embedding: WordEmbedding, inputs: tuple[Tensor, Tensor]) -> Tensor:
    """The last entry in training: what the loss computes its own logits from, chunk by chunk (glm/head.py).

    Args:
        embedding: the tied module, which the loss is given by itself.
        inputs: hidden (tokens, hidden), after the final norm, and fields.

    Returns:
        (tokens, hidden), of all tokens.
    """
    return embedding.word_embeddings.all_tokens(inputs[0])


def output_logits(embedding: WordEmbedding, inputs: tuple[Tensor, Tensor]) -> Tensor:
    """Compute the tied head's logits where, and only where, there is a target.

    Args:
        embedding: the tied module.
        inputs: hidden (tokens, hidden), after the final norm, and fields.

    Returns:
        (targets, vocab_local), targets in row order.
    """
    hidden, fields = inputs
    hidden = embedding.word_embeddings.all_tokens(hidden)
    rows = hidden[fields[:, TARGET].reshape(-1).bool()]
    weight = ScaleGradient.apply(embedding.weight, embedding.gradient_shrink)
    return embedding.word_embeddings.logits(rows, weight)
