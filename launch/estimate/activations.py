"""Memory that one layer of glm/layer.py keeps for its backward pass, and its temporary buffers.

Counted tensor by tensor, as in Korthikanti et al. 2022, section 4.1, but for this layer instead of a GPT layer:
GeGLU keeps value, gate and their product, rotated queries and keys are new tensors, and dropout keeps one byte per
element. Hidden states, their norms and sums are replicated on all tensor-parallel ranks, unless sequence parallelism
shards them as well; the rest is always sharded.
"""

from dataclasses import dataclass

from configs import computation, derive
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
    shared: int
    """What all layers of the micro-batch share."""

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
        whole = tokens * model.hidden_size * size
        parts = tp if derive.is_sequence_cut(config.parallel) else 1
        hidden = whole // parts
        inner = tokens * model.ffn_size // tp * size
        # The outputs of two norms, the sum between them, the layer's output, and three inner tensors of the GeGLU.
        kept = 4 * hidden + 3 * inner + _attention(config, whole // tp, size, on_gpu)
        # Sandwich-LN's further norms keep what they read.
        kept += (derive.norms_per_layer(model) - 2) * hidden
        # The input; queries, keys and values, and mixed values; the two outer products; the two inner ones.
        selected = hidden + 4 * whole // tp + 2 * whole + 2 * inner
        if computation.attention_path(model, on_gpu)[0] is AttentionPath.reference:
            selected += _scores(config) * size
        hashed = tokens // parts * model.hidden_size if model.hidden_dropout > 0 else 0
        kept += 2 * hashed  # one byte per element at each of two places
        if model.attention_dropout > 0:
            hashed = max(hashed, _scores(config))
        # The GeGLU's backward pass holds its output's gradient and makes two, on CPU from two temporaries; the products
        # after it hold two and the gradient of all tokens' hidden states.
        working = max((3 if on_gpu else 5) * inner, 2 * inner + whole, _DROPOUT_BYTES * hashed)
        return cls(tokens, hidden, kept, selected, working, _mask_bytes(config, on_gpu))


def _attention(config: Config, heads: int, size: int, on_gpu: bool) -> int:
    """Bytes that attention keeps; `heads`: bytes of one tensor of all heads of a rank."""
    model = config.model
    path, _ = computation.attention_path(model, on_gpu)
    # Queries, keys, values and the mixed values, which are the output layer's input as they lie.
    kept = 4 * heads
    if model.qk_norm:
        kept += 2 * heads  # queries and keys before their norms
    if path is AttentionPath.reference:
        # The weights in half precision, and again behind dropout with one byte for its mask.
        kept += _scores(config) * (size + (size + 1 if model.attention_dropout > 0 else 0))
        if not model.softmax_fp32:
            kept += _scores(config) * size  # the exponentials
    elif path is AttentionPath.sdpa:
        if size == 2 and computation.attends_in_fp32(model, on_gpu):
            kept = 2 * kept + heads  # the output layer's input is in half precision
        elif config.optim.micro_batch_size > 1 and len(set(_windows(config))) > 1:
            kept += heads  # rows of both kinds are put together
    return kept


def _scores(config: Config) -> int:
    """Attention scores of a micro-batch on a rank."""
    model = config.model
    heads = config.optim.micro_batch_size * model.num_heads // config.parallel.tp
    return heads * model.seq_length**2


def _mask_bytes(config: Config, on_gpu: bool) -> int:
    """What the layers of a micro-batch share: the mask of the sdpa path."""
    path, _ = computation.attention_path(config.model, on_gpu)
    if path is not AttentionPath.sdpa:
        return 0
    in_fp32 = computation.attends_in_fp32(config.model, on_gpu)
    return _mask_elements(config) * (4 if in_fp32 else computation.element_bytes(config.precision))


def _mask_elements(config: Config) -> int:
    """Elements of the additive mask of scaled_dot_product_attention, if all rows of a micro-batch take the larger one."""
    scores = config.optim.micro_batch_size * config.model.seq_length**2
    return max(0 if fold is None else scores // fold for fold in _windows(config))


def _windows(config: Config) -> list[int | None]:
    """Windows into which the sdpa path folds rows of each kind; None: it computes them without a mask."""
    model, objective = config.model, config.objective
    found = [computation.fold_of_windows(model.seq_length, objective.windows_per_row)]
    if objective.gmask_share > 0 or objective.shares:
        found.append(computation.fold_of_windows(model.seq_length, 1))
    return found
