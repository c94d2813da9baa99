"""The model, and how it is spread over processes."""

from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from configs.bounds import Bound, Count, ShareBelow1, above_zero

ZERO_STAGE = Bound(
    "0 or 1",
    lambda value: value in (0, 1),
    1,
    must="be 0 or 1: the pipeline engine shards optimizer states only",
)

CHUNKS = Bound("at least 2", lambda value: value >= 2, 2)


class Precision(str, Enum):
    """Number format of parameters and activations."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class DeviceKind(str, Enum):
    """Where the run computes."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class AttentionPath(str, Enum):
    """Which attention implementation computes the scores."""

    auto = "auto"
    reference = "reference"
    sdpa = "sdpa"
    flex = "flex"


class Norm(str, Enum):
    """Where a layer normalises, how much its residual weighs, and how its weights begin (glm/gains.py)."""

    deepnorm = "deepnorm"
    post = "post"
    pre = "pre"
    sandwich = "sandwich"


class Recompute(str, Enum):
    """What the backward pass computes again instead of keeping it."""

    none = "none"
    selective = "selective"
    full = "full"


# The order in which a stage runs the passes of a step. Written as a call because OmegaConf goes by the members' names, and
# 1f1b is no name of Python's.
PipelineSchedule = Enum(
    "PipelineSchedule", {"1f1b": "1f1b", "interleaved": "interleaved"}, type=str, module=__name__
)


class RopeTables(str, Enum):
    """Precision of the rotary angles: fp16 reproduces the tables that the released GLM-130B was trained with."""

    fp32 = "fp32"
    fp16 = "fp16"


@dataclass
class ModelConfig:
    """GLM architecture. GLM-130B (Zeng et al. 2022), section 2.1 and appendix B."""

    num_layers: Count = 4
    """Transformer layers."""
    hidden_size: Count = 256
    """Width of the residual stream; a multiple of num_heads."""
    num_heads: Count = 4
    """Attention heads; parallel.tp must divide it."""
    ffn_size: Count = 704
    """Width inside the GeGLU feed-forward: 8/3 of hidden_size rounded up to 64 in the presets."""
    vocab_size: Count = 4096
    """Number of token ids, which must be above all ids of the tokenizer; also the size of the tokenizer that is trained
    when `data.tokenizer` names none."""
    vocab_multiple: Count = 128
    """The embedding has vocab_size rounded up to this multiple (independent of parallel.tp, which must divide it)."""
    seq_length: Count = 512
    """Tokens per row (sample)."""
    hidden_dropout: ShareBelow1 = 0.0
    """Dropout probability after the embedding, the attention output and the feed-forward output."""
    attention_dropout: ShareBelow1 = 0.0
    """Dropout probability of the attention weights; above 0 needs the reference attention path."""
    norm: Norm = Norm.deepnorm
    """deepnorm: GLM-130B's Post-LN with a weighted residual; post: the same without weights; pre: GPT-2's; sandwich: pre
    with a LayerNorm at the end of each branch (CogView). Each has initial weights of its own."""
    embedding_norm: bool = False
    """A LayerNorm right after the embedding's lookup (BLOOM)."""
    qk_norm: bool = False
    """A LayerNorm over each head's queries and keys, before rotary positions (ViT-22B, GLM-4.5)."""
    softmax_fp32: bool = True
    """false: the attention softmax is computed in the training precision, for experiments; needs the reference attention
    path, and a precision other than fp32."""
    layernorm_epsilon: Annotated[float, above_zero(1e-5)] = 1e-5
    """Epsilon of every LayerNorm."""
    embedding_init_std: Annotated[float, above_zero(0.0052)] | None = None
    """Standard deviation of the initial embedding; default sqrt(1 / (3 hidden_size)), GLM-130B's 0.0052."""
    rope_base: Annotated[float, above_zero(10000)] = 10000.0
    """Base of the rotary angles."""
    rope_2d: bool = False
    """Rotate half of each head by the position and half by the block position (ChatGLM-6B); GLM-130B uses 1-D."""
    rope_tables: RopeTables = RopeTables.fp32
    """Precision of the rotary tables; fp16 is only for continuing GLM-130B's released weights."""
    attention: AttentionPath = AttentionPath.auto
    """auto: flex on CUDA, sdpa on CPU, reference with attention dropout and without `model.softmax_fp32`."""


@dataclass
class ParallelConfig:
    """How the model is spread over processes; the data-parallel size is the number of processes / (tp x pp)."""

    tp: Count = 1
    """Tensor-parallel size: each layer's matrices are cut over this many ranks."""
    pp: Count = 1
    """Pipeline-parallel size: the layers are cut into this many stages."""
    sequence: bool = False
    """Sequence parallelism: norms, residuals and dropout are cut over the tensor-parallel ranks by tokens; parallel.tp
    must divide model.seq_length. Without effect at parallel.tp=1."""
    overlap: bool = False
    """Reduce gradients over the replicas while the last backward passes run, and gather weights while the next forward
    passes run: bf16 with ZeRO-1. Without effect on one replica."""
    zero_stage: Annotated[int, ZERO_STAGE] = 1
    """0: every rank keeps the whole optimizer state (fp32 only); 1: it is sharded over the data-parallel ranks."""
    recompute: Recompute = Recompute.none
    """What the backward pass computes again instead of keeping it: full: each layer; selective: each layer but its
    matrix products, attention and sums over ranks; none. true means full and false none."""
    schedule: PipelineSchedule = PipelineSchedule["1f1b"]
    """1f1b: each stage is one part of the model. interleaved: each stage is several parts, and the time that stages wait
    is divided by their number; every step needs at least parallel.pp micro-batches."""
    chunks: Annotated[int, CHUNKS] | None = None
    """Parts of the model on each stage with parallel.schedule=interleaved; default 2."""
