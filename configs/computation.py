"""Facts about the computation that training and estimates share: attention paths, number formats, buffer sizes.

`glm` and `train` compute by them, and `launch`, which must not import PyTorch, calculates with them.
"""

from configs import pipeline
from configs.schema import AttentionPath, Config, ModelConfig, ParallelConfig, Precision

# --- attention

# Rows are folded into windows of 1/2, 1/4 or 1/8 of their length, and attended with a mask, if those are short: there a
# call per segment costs more than the mask (measured on CPU, both passes, time with the mask over time without: 0.6 at
# windows of 64, 0.9 at 256, 1.2 at 512).
FOLDS = (8, 4, 2, 1)
SHORT_WINDOW = 256
SHORT_ROW = 512

ROW_FIELDS = 6
"""Integers (int64) that travel with each token's hidden state from stage to stage (glm/row_fields.py)."""


def attention_path(model: ModelConfig, on_gpu: bool) -> tuple[AttentionPath, str]:
    """Resolve `model.attention`.

    Args:
        model: the `model` section of the configuration.
        on_gpu: True: the run computes on CUDA; False: on CPU.

    Returns:
        The path, and the reason in a few words.
    """
    if model.attention_dropout > 0:
        return AttentionPath.reference, "attention dropout needs the weights themselves"
    if not model.softmax_fp32:
        return AttentionPath.reference, "a softmax without fp32 needs the scores themselves"
    if model.attention is not AttentionPath.auto:
        return model.attention, "as configured"
    if on_gpu:
        return AttentionPath.flex, "block-sparse over the segments on CUDA"
    return AttentionPath.sdpa, "FlexAttention has no backward pass on CPU"


def attends_in_fp32(model: ModelConfig, on_gpu: bool) -> bool:
    """True if the sdpa path converts half precision: on CPU its kernels for short rows take longer in bf16."""
    return not on_gpu and model.seq_length <= SHORT_ROW


def folds(seq_length: int) -> tuple[int, ...]:
    """Numbers of equal windows into which the sdpa path tries to fold a row of `seq_length` tokens, in order."""
    return tuple(fold for fold in FOLDS if seq_length <= fold * SHORT_WINDOW)


def fold_of_windows(seq_length: int, windows_per_row: int) -> int | None:
    """Number of windows into which a row of `windows_per_row` equal segments is folded; None: it is not."""
    return next((fold for fold in folds(seq_length) if windows_per_row % fold == 0), None)


# --- the head


# A chunk's logits are an eighth of the matrix, or 16 MiB where the matrix is small.
_SHARE_OF_MATRIX = 8
_SMALL_CHUNK = 1 << 22


def head_rows_at_once(vocab_local: int, hidden_size: int) -> int:
    """Targets whose logits over a rank's part of the vocabulary are held at once (glm/head.py)."""
    return max(hidden_size // _SHARE_OF_MATRIX, _SMALL_CHUNK // vocab_local, 1)


HEAD_BLOCK = 1 << 22
"""Logits of a block of the vocabulary, where all targets pass over the matrix at once (glm/head_in_place.py): 16 MiB."""


def head_rows_in_place(targets: int, vocab_local: int, hidden_size: int, on_gpu: bool) -> int:
    """Targets whose logits are held in the memory of the matrix's gradient: on CPU, if one chunk does not hold all."""
    if on_gpu or targets <= head_rows_at_once(vocab_local, hidden_size):
        return 0
    return min(targets, hidden_size)


def head_chunks(targets: int, vocab_local: int, hidden_size: int) -> int:
    """Chunks in which the head and the loss of that many targets are computed."""
    return -(-targets // head_rows_at_once(vocab_local, hidden_size))


# --- number formats


def element_bytes(precision: Precision) -> int:
    """Bytes of a weight or an activation; `auto` counts as bf16."""
    return 4 if precision is Precision.fp32 else 2


def sums_in_fp32(precision: Precision) -> bool:
    """True if gradients of half precision are added up in fp32, over micro-batches and over replicas; `auto` as bf16."""
    return precision in (Precision.bf16, Precision.auto)


def zero_stage(parallel: ParallelConfig, precision: Precision, dp: int) -> int:
    """Stage of ZeRO that the engine runs with `dp` replicas.

    In fp32 one replica has nothing to share: ZeRO-1 would only keep and pass around copies of weights and gradients.
    Half precision needs its wrapper, which keeps the fp32 weights.
    """
    return 0 if dp == 1 and precision is Precision.fp32 else parallel.zero_stage


# --- buffers

GRADIENT_BUCKET = 500_000_000
"""Elements of the buffer in which DeepSpeed copies gradients together to reduce them."""

OVERLAP_BUCKET = 40_000_000
"""Elements of the stretches in which `parallel.overlap` reduces gradients and gathers weights: 160 MB in fp32, 4 ms of a
network of 50 GB/s, far above what starting a collective takes."""

# Squares of a gradient are added up in float64, so many elements at a time: two such copies of GLM-130B's embedding
# shard would be 7 GB. On CPU the copies stay in the cache, which is five times as fast.
SQUARED_AT_ONCE = 1 << 22
SQUARED_IN_CACHE = 1 << 16


def squared_at_once(on_gpu: bool) -> int:
    """Elements of a gradient that are squared at once."""
    return SQUARED_AT_ONCE if on_gpu else SQUARED_IN_CACHE


def reduce_bucket_size(config: Config) -> int:
    """Elements of the buffer in which ZeRO-1 reduces gradients: DeepSpeed's bucket, or all that a rank has.

    DeepSpeed allocates it whole, and twice: 4 GB in fp32, however small the model.
    """
    return min(GRADIENT_BUCKET, max(pipeline.stage_parameters(config)))
