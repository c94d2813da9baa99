"""What one layer of glm/layer.py keeps for its backward pass, and needs beside it while it works.

Counted tensor by tensor, in the spirit of Korthikanti et al. 2022, section 4.1, for this layer instead of a GPT's:
GeGLU keeps four inner tensors, rotated queries and keys are new tensors, and dropout keeps one byte per element.
Hidden states, their norms and sums are whole on every tensor-parallel rank; the rest is cut.
"""

from dataclasses import dataclass

from configs import computation
from configs.schema import AttentionPath, Config

# glm/dropout.py hashes int64 indices: about four tensors of 8 bytes per element at once.
_DROPOUT_BYTES = 32


@dataclass(frozen=True)
class LayerSizes:
    """Bytes of one layer and one micro-batch on one rank."""

    tokens: int
    """Tokens of the micro-batch."""
    hidden: int
    """One tensor of hidden states: what recompute keeps of a layer."""
    kept: int
    """Everything its backward pass needs, its output included."""
    working: int
    """What comes and goes beside that."""

    @classmethod
    def of(cls, config: Config, size: int, on_gpu: bool) -> "LayerSizes":
        """Count.

        Args:
            config: sizes, dropout and attention path.
            size: bytes of an activation's element.
            on_gpu: False: the CPU's attention path.
        """
        model, tp = config.model, config.parallel.tp
        tokens = config.optim.micro_batch_size * model.seq_length
        hidden = tokens * model.hidden_size * size
        inner = tokens * model.ffn_size // tp * size
        scores = config.optim.micro_batch_size * model.num_heads // tp * model.seq_length**2
        # Two norms' outputs, the sum between them, and the layer's output; four inner tensors of the GeGLU.
        kept = 4 * hidden + 4 * inner
        path, _ = computation.attention_path(model, on_gpu)
        is_long_on_cpu = path is AttentionPath.sdpa and model.seq_length > computation.SHORT_ROW
        # Queries, keys, values, mixed values and the output layer's input; cut rows keep the fused tensor as well.
        kept += (7 if is_long_on_cpu else 5) * hidden // tp
        has_dropout = model.attention_dropout > 0
        if path is AttentionPath.reference:
            # Softmax in fp32, the weights in half precision beside it, and what dropout adds.
            kept += scores * (4 + (size if size == 2 or has_dropout else 0) + has_dropout)
        elif path is AttentionPath.sdpa:
            kept += _mask_elements(config) * size
        hashed = tokens * model.hidden_size if model.hidden_dropout > 0 else 0
        kept += 2 * hashed  # one byte per element and site
        hashed = max(hashed, scores if has_dropout else 0)
        # The backward pass of the GeGLU holds two inner gradients and a hidden one.
        working = max(2 * inner + hidden, _DROPOUT_BYTES * hashed)
        return cls(tokens, hidden, kept, working)


def _mask_elements(config: Config) -> int:
    """The additive mask of scaled_dot_product_attention: whole rows, or windows if every row is a [MASK] row."""
    model, objective = config.model, config.objective
    is_short_windows = objective.gmask_share == 0 and not objective.shares
    windows = computation.fold_of_windows(objective.windows_per_row) if is_short_windows else 1
    return config.optim.micro_batch_size * model.seq_length**2 // windows
