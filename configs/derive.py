"""Numbers derived from a configuration: computed here, never configured, and printed at the start of a run.

The sentence to remember:  global_batch_size == micro_batch_size * grad_accum * dp.
"""

import math
from dataclasses import dataclass

from configs.scheduler import limit_seconds
from configs.schema import (
    Config,
    DataConfig,
    LossWeighting,
    ModelConfig,
    Norm,
    OptimConfig,
    ParallelConfig,
    Recompute,
)

# The original cuts 2000 stored tokens for a row of 2048, so that most inserted tokens fit.
GLM_130B_ROW = (125, 128)
GLM_130B_INSTRUCTION_SHARE = 0.05
# The slice of a [MASK] segment in the `fit` rule: 456 of 512 tokens leave room for the markers of 28 spans, more than
# all but 0.5 % of the span plans need.
FIT_SLICE_OF_512 = 456


@dataclass(frozen=True)
class BatchRamp:
    """A batch ramp with all values set, in samples."""

    start: int
    increment: int
    samples: int

    def num_increments(self, global_batch_size: int) -> int:
        """How often the batch grows until it is full."""
        return (global_batch_size - self.start) // self.increment


@dataclass(frozen=True)
class RampLevel:
    """A stretch of the run with one batch size."""

    first_sample: int
    num_steps: int
    batch_size: int


# --- the run


def run_name(config: Config) -> str:
    """Name of the run: its own or the experiment's."""
    return config.run.name or config.experiment


def run_dir(config: Config) -> str:
    """Folder of the run."""
    return config.run.dir or f"runs/{run_name(config)}"


def save_every_samples(config: Config) -> int:
    """Checkpoint interval in samples: a tenth of the run unless set."""
    return config.checkpoint.save_every_samples or max(config.optim.total_samples // 10, 1)


def eval_every_samples(config: Config) -> int:
    """Evaluation interval in samples: a quarter of the run unless set."""
    return config.eval.every_samples or max(config.optim.total_samples // 4, 1)


def time_limit_seconds(time: str) -> int:
    """Seconds of a checked time limit, in one of the forms that sbatch accepts."""
    return limit_seconds(time) or 0


# --- parallelism


def data_parallel_size(config: Config, world_size: int) -> int:
    """Number of model replicas among `world_size` ranks."""
    return world_size // (config.parallel.tp * config.parallel.pp)


def planned_world_size(config: Config) -> int:
    """Number of ranks that the configuration plans: those of the cluster, and at least those of one whole model."""
    model_parallel = config.parallel.tp * config.parallel.pp
    cluster = config.cluster.nodes * config.cluster.gpus_per_node
    return max(cluster, model_parallel)


def ranks_per_node(config: Config) -> int:
    """Ranks that each node runs, and the GPUs that it needs for them.

    This is `cluster.gpus_per_node`. Only where the cluster is left at its default of one rank, and the model needs tp x
    pp ranks, do all of these run on one node.
    """
    return planned_world_size(config) // config.cluster.nodes


def grad_accum(optim: OptimConfig, dp: int, batch_size: int) -> int:
    """Micro-batches per step and replica."""
    return batch_size // (optim.micro_batch_size * dp)


def divides(optim: OptimConfig, dp: int, batch_size: int) -> bool:
    """True if a batch divides among the replicas in whole micro-batches."""
    return batch_size % (optim.micro_batch_size * dp) == 0


# --- the model's size


def padded_vocab_size(model: ModelConfig) -> int:
    """Rows of the embedding: vocab_size rounded up to vocab_multiple."""
    return -(-model.vocab_size // model.vocab_multiple) * model.vocab_multiple


def head_size(model: ModelConfig) -> int:
    """Width of one attention head."""
    return model.hidden_size // model.num_heads


def embedding_init_std(model: ModelConfig) -> float:
    """Standard deviation of the initial embedding; GLM-130B's 0.0052 is sqrt(1 / (3 * 12288))."""
    return model.embedding_init_std or math.sqrt(1 / (3 * model.hidden_size))


def layer_parameters(model: ModelConfig, tp: int = 1) -> int:
    """Parameters of one layer on one tensor-parallel rank: attention, GeGLU, two LayerNorms or more."""
    hidden, ffn = model.hidden_size, model.ffn_size
    cut = (
        (3 * hidden * hidden + 3 * hidden)  # query, key, value with bias
        + hidden * hidden  # attention output
        + 2 * (hidden * ffn + ffn)  # value and gate halves with bias
        + ffn * hidden  # feed-forward output
    )
    # Biases of the two outputs; weight and bias of the norms.
    replicated = 2 * hidden + 2 * hidden * norms_per_layer(model)
    if model.qk_norm:
        replicated += 4 * head_size(model)
    return cut // tp + replicated


def norms_per_layer(model: ModelConfig) -> int:
    """LayerNorms over the hidden states in one layer."""
    return 4 if model.norm is Norm.sandwich else 2


def embedding_norm_parameters(model: ModelConfig) -> int:
    """Parameters of the embedding's own norm, which the first stage alone holds."""
    return 2 * model.hidden_size if model.embedding_norm else 0


def parameter_sizes(model: ModelConfig, tp: int = 1) -> tuple[int, int]:
    """Elements of the largest matrices of one rank: the embedding's and the feed-forward's."""
    hidden = model.hidden_size
    return padded_vocab_size(model) * hidden // tp, hidden * model.ffn_size // tp


def parameters(model: ModelConfig) -> int:
    """Exact parameter count, the tied head counted once."""
    embedding = padded_vocab_size(model) * model.hidden_size + embedding_norm_parameters(model)
    return embedding + model.num_layers * layer_parameters(model) + 2 * model.hidden_size


def matrix_weights(model: ModelConfig) -> int:
    """Weights of one layer's matrices, which multiply every token: attention's four and the three of the GeGLU."""
    return 4 * model.hidden_size**2 + 3 * model.hidden_size * model.ffn_size


def is_sequence_cut(parallel: ParallelConfig) -> bool:
    """True if hidden states between matrices are cut over the tensor-parallel ranks by tokens."""
    return parallel.sequence and parallel.tp > 1


def flops_per_sample(model: ModelConfig, recompute: Recompute = Recompute.none) -> float:
    """Floating-point operations to train one row, forward and backward.

    At an inner width of 8/3 h that is, per row with full recompute, 96 s L h^2 (1 + s / 6h + V / 16Lh); GLM-130B's log
    counts the same way: every token attends to all tokens of its row and has logits (configs/flops.py: those that are
    computed). Selective recompute repeats no matrix of a layer, and so counts as none.
    """
    return transformer_flops(
        model.num_layers,
        model.hidden_size,
        matrix_weights(model),
        padded_vocab_size(model),
        model.seq_length,
        recompute is Recompute.full,
    )


def transformer_flops(
    num_layers: int,
    hidden_size: int,
    weights_per_layer: float,
    vocab_size: int,
    seq_length: int,
    recompute: bool = False,
) -> float:
    """Operations to train one row of any Transformer. Narayanan et al. 2021, appendix.

    A forward pass is 2 operations per weight of a matrix and token, and 4 s h more per token and layer for the scores
    and their use, masked ones included; the backward pass costs two of them, recompute of the layers another one.

    Args:
        num_layers: of the model.
        hidden_size: width h.
        weights_per_layer: of the layer's matrices: 4 h^2 of attention and 8 h^2 of a feed-forward, gated or not.
        vocab_size: rows V of the output matrix.
        seq_length: tokens s of the row.
        recompute: every layer's forward pass is done twice.
    """
    layer = 2 * seq_length * weights_per_layer + 4 * seq_length**2 * hidden_size
    head = 2 * seq_length * hidden_size * vocab_size
    return float((4 if recompute else 3) * num_layers * layer + 3 * head)


# --- schedules


def min_lr(optim: OptimConfig) -> float:
    """Final learning rate."""
    return optim.lr / 10 if optim.min_lr is None else optim.min_lr


def schedule_samples(optim: OptimConfig) -> int:
    """Length of the run from which unset schedules are derived: the whole run unless set."""
    return optim.total_samples if optim.schedule_samples is None else optim.schedule_samples


def warmup_samples(optim: OptimConfig) -> int:
    """Length of the linear warm-up: a tenth of the run unless set."""
    return schedule_samples(optim) // 10 if optim.warmup_samples is None else optim.warmup_samples


def decay_samples(optim: OptimConfig) -> int:
    """Samples seen when the learning rate reaches its minimum: the end of the run unless set."""
    return schedule_samples(optim) if optim.decay_samples is None else optim.decay_samples


def wsd_decay_samples(optim: OptimConfig) -> int:
    """Length of the wsd schedule's final decay: a tenth of decay_samples unless set."""
    return (
        decay_samples(optim) // 10 if optim.wsd_decay_samples is None else optim.wsd_decay_samples
    )


def rollback_samples(config: Config) -> int:
    """Samples after a rollback that are trained with lowered factors: 2 % of the run unless set."""
    if config.stability.rollback_samples is not None:
        return config.stability.rollback_samples
    return max(schedule_samples(config.optim) // 50, 256 * config.optim.global_batch_size)


def batch_ramp(optim: OptimConfig) -> BatchRamp | None:
    """The batch ramp, its unset keys derived from the set ones; None: no ramp."""
    ramp, full = optim.batch_ramp, optim.global_batch_size
    if ramp is None:
        return None
    start = ramp.start
    if start is None:
        eighth = max(full // optim.micro_batch_size // 8, 1) * optim.micro_batch_size
        start = eighth if ramp.increment is None else ramp.increment
    # A divisor of the first and of the full batch divides every batch between them; so does micro_batch_size x dp.
    increment = math.gcd(start, full) if ramp.increment is None else ramp.increment
    samples = max(schedule_samples(optim) // 40, 1) if ramp.samples is None else ramp.samples
    return BatchRamp(start, increment, samples)


def batch_size_at(optim: OptimConfig, samples_seen: int) -> int:
    """Global batch size of the step that starts at `samples_seen`.

    The ramp lasts `samples` samples in equal stretches: start + increment * floor(samples_seen / stretch).
    """
    ramp, full = batch_ramp(optim), optim.global_batch_size
    if ramp is None or samples_seen >= ramp.samples:
        return full
    grown = samples_seen * ramp.num_increments(full) // ramp.samples
    return min(ramp.start + ramp.increment * grown, full)


def ramp_levels(optim: OptimConfig, samples_seen: int = 0) -> list[RampLevel]:
    """The rest of a run after `samples_seen`, as stretches of equal batch size; the last step is a whole one."""
    ramp, full = batch_ramp(optim), optim.global_batch_size
    levels: list[RampLevel] = []
    seen = samples_seen
    while seen < optim.total_samples:
        size = batch_size_at(optim, seen)
        end = optim.total_samples
        if ramp is not None and size < full:
            grown = (size - ramp.start) // ramp.increment + 1
            end = min(end, -(-grown * ramp.samples // ramp.num_increments(full)))
        num_steps = -(-(end - seen) // size)
        levels.append(RampLevel(seen, num_steps, size))
        seen += num_steps * size
    return levels


def num_steps(optim: OptimConfig) -> int:
    """Optimizer steps of the whole run."""
    return sum(level.num_steps for level in ramp_levels(optim))


def step_of(optim: OptimConfig, samples_seen: int) -> int:
    """Steps done when `samples_seen` samples are seen (rounded down to whole steps)."""
    steps = 0
    for level in ramp_levels(optim):
        inside = (samples_seen - level.first_sample) // level.batch_size
        if inside <= level.num_steps:
            return steps + max(inside, 0)
        steps += level.num_steps
    return steps


# --- rows


def instruction_shares(data: DataConfig) -> list[tuple[int, float]]:
    """Share of instruction rows as (from_sample, share) points: GLM-130B's 5 % unless set."""
    points = (
        [[0, GLM_130B_INSTRUCTION_SHARE]]
        if data.instruction_share is None
        else data.instruction_share
    )
    return [(int(start), share) for start, share in points]


def window_length(config: Config) -> int:
    """Tokens of one [MASK] segment's window."""
    return config.model.seq_length // config.objective.windows_per_row


def slice_length(window: int) -> int:
    """Stored tokens of one [MASK] segment in the `fit` rule: 456 of 512, in multiples of 8."""
    return max(window * FIT_SLICE_OF_512 // 512 // 8 * 8, 1)


def counts_tokens(config: Config) -> bool:
    """True if the loss weighs target tokens rather than rows."""
    return config.objective.loss_weighting is LossWeighting.token
