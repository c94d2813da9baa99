"""Memory that one layer of glm/layer.py keeps for its backward pass, and its temporary buffers.

Counted tensor by tensor, as in Korthikanti et al. 2022, section 4.1, but for this layer instead of a GPT layer:
GeGLU keeps four inner tensors, rotated queries and keys are new tensors, and dropout keeps one byte per element.
Hidden states, their norms and sums are replicated on all tensor-parallel ranks; the rest is sharded.
"""

from dataclasses import dataclass

from configs import computation
from configs.schema import AttentionPath, Config, Recompute

# glm/dropout.py hashes int64 indices: about four tensors of 8 bytes per element exist at the same time.
_DROPOUT_BYTES = 32


@dataclass(frozen=True)
class LayerSizes:
    """Bytes of one layer and one micro-batch on one rank."""

    tokens: int
    """Tokens of the micro-batch."""
    hidden: int
    """One tensor of hidden states: all that a layer keeps with recompute."""
    kept: int
    """Everything that its backward pass needs, including its output."""
    selected: int
    """What selective recompute keeps: the input, and the outputs of matrix products and attention."""
    working: int
    """Temporary buffers in addition to that."""

    def kept_with(self, recompute: Recompute) -> int:
        """What is kept of a layer until its backward pass begins."""
        return {
            Recompute.none: self.kept,
            Recompute.selective: self.selected,
            Recompute.full: self.hidden,
        }[recompute]

    @classmethod
    def of(cls, config: Config, size: int, on_gpu: bool) -> "LayerSizes":
        """Count the bytes of a configuration's layer.

        Args:
            config: configuration of the run; its sizes, dropout and attention path are used.
            size: bytes of one element of an activation.
            on_gpu: True for the attention path on GPUs, False for that on CPUs.
        """
        model, tp = config.model, config.parallel.tp
        tokens = config.optim.micro_batch_size * model.seq_length
        hidden = tokens * model.hidden_size * size
        inner = tokens * model.ffn_size // tp * size
        scores = config.optim.micro_batch_size * model.num_heads // tp * model.seq_length**2
        # The outputs of two norms, the sum between them, the layer's output, and four inner tensors of the GeGLU.
        kept = 4 * hidden + 4 * inner
        path, _ = computation.attention_path(model, on_gpu)
        is_long_on_cpu = path is AttentionPath.sdpa and model.seq_length > computation.SHORT_ROW
        # Queries, keys, values, attention output and the input of the output layer; rows that are cut into blocks keep
        # the fused tensor as well.
        kept += (7 if is_long_on_cpu else 5) * hidden // tp
        has_dropout = model.attention_dropout > 0
        if path is AttentionPath.reference:
            # The softmax in fp32, the weights in half precision, and what dropout adds.
            kept += scores * (4 + (size if size == 2 or has_dropout else 0) + has_dropout)
        elif path is AttentionPath.sdpa:
            kept += _mask_elements(config) * size
        # The input; queries, keys and values, and mixed values; the two outer products; the two inner ones.
        selected = 3 * hidden + 4 * hidden // tp + 2 * inner
        if path is AttentionPath.reference:
            selected += scores * size
        hashed = tokens * model.hidden_size if model.hidden_dropout > 0 else 0
        kept += 2 * hashed  # one byte per element at each of two places
        hashed = max(hashed, scores if has_dropout else 0)
        # The backward pass of the GeGLU holds two inner gradients and one of the hidden states.
        working = max(2 * inner + hidden, _DROPOUT_BYTES * hashed)
        return cls(tokens, hidden, kept, selected, working)


def _mask_elements(config: Config) -> int:
    """Elements of the additive mask of scaled_dot_product_attention: of windows if all rows are [MASK] rows, else of rows."""
    model, objective = config.model, config.objective
    is_short_windows = objective.gmask_share == 0 and not objective.shares
    windows = computation.fold_of_windows(objective.windows_per_row) if is_short_windows else 1
    return config.optim.micro_batch_size * model.seq_length**2 // windows
