"""Operations of a training step for MFU and HFU, with attention and head as they are computed.

`derive.flops_per_sample` counts as published figures do: every token attends to every token of its row, and has logits. A
GLM row is made of segments that do not attend to each other, and only its targets have logits; what is left out here is
never computed. docs/throughput.md has the formulas.
"""

from dataclasses import dataclass

from configs import computation, derive
from configs.schema import AttentionPath, ModelConfig, Recompute


@dataclass(frozen=True)
class Computed:
    """What of a number of rows is computed."""

    rows: float
    pairs: float
    """Pairs of tokens whose score is computed in a layer, over all rows."""
    targets: float
    """Tokens with logits, over all rows."""

    @classmethod
    def dense(cls, model: ModelConfig, rows: float = 1.0) -> "Computed":
        """Everything."""
        return cls(rows, rows * model.seq_length**2, rows * model.seq_length)


def model_flops(model: ModelConfig, computed: Computed) -> float:
    """Operations of forward and backward passes, nothing of which is done twice: gives MFU."""
    matrices, attention, head = _forward(model, computed)
    return 3 * (matrices + attention + head)


def hardware_flops(
    model: ModelConfig, computed: Computed, recompute: Recompute, on_gpu: bool
) -> float:
    """Operations with those that are done twice: gives HFU.

    Full recompute repeats the forward passes of the layers. Selective recompute keeps products and attention, except for
    FlexAttention where it is compiled, on CUDA. Fused attention keeps no scores: its backward pass computes them again,
    half of what its forward pass does.
    """
    matrices, attention, _ = _forward(model, computed)
    path, _ = computation.attention_path(model, on_gpu)
    again = 0.0
    if recompute is Recompute.full:
        again += matrices + attention
    elif recompute is Recompute.selective and path is AttentionPath.flex and on_gpu:
        again += attention
    if path is not AttentionPath.reference:
        again += attention / 2
    return model_flops(model, computed) + again


def _forward(model: ModelConfig, computed: Computed) -> tuple[float, float, float]:
    """Of a forward pass: matrices of the layers, scores and their use, the head. 2 operations for each multiplication."""
    layers, hidden = model.num_layers, model.hidden_size
    tokens = computed.rows * model.seq_length
    matrices = 2.0 * layers * tokens * derive.matrix_weights(model)
    attention = 4.0 * layers * computed.pairs * hidden
    head = 2.0 * computed.targets * hidden * derive.padded_vocab_size(model)
    return matrices, attention, head
