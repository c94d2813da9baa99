"""Memory of one rank during a step, counted buffer by buffer.

The peak is in one of three phases of a step: the backward pass of a micro-batch, the reduction of the gradients, or
the update. The sizes of weights, gradients, masters and moments are exact, those of DeepSpeed's buffers are what its
source (0.19.8) allocates, those of activations are counted from glm/layer.py. `python -m benchmarks memory` compares
the sum with the allocator's live bytes.
"""

from dataclasses import dataclass

from configs import computation, cutting, derive, optimizers, pipeline
from configs.schema import Config
from launch.estimate.activations import LayerSizes


@dataclass(frozen=True)
class StageMemory:
    """Bytes on a rank of one stage; not all of them are allocated at the same time."""

    stage: int
    weights: int
    gradients: int
    masters: int
    """fp32 copies of the weights: the share of one replica."""
    moments: int
    activations: int
    """Kept for the backward passes of the micro-batches in flight, and temporary buffers of the current layer."""
    outputs: int
    """What the pipeline keeps of the last stage's outputs until they are overwritten."""
    pipe_buffers: int
    """Received and sent hidden states, row fields and gradients."""
    in_backward: int
    """Reduce bucket that is allocated while a micro-batch runs."""
    in_reduction: int
    """Buckets and copies during the reduction of the gradients."""
    in_update: int
    """Copies during the optimizer step."""

    @property
    def state(self) -> int:
        """Weights, gradients, masters and moments."""
        return self.weights + self.gradients + self.masters + self.moments

    @property
    def phases(self) -> dict[str, int]:
        """Bytes allocated in each phase of a step."""
        # The pipeline keeps the last outputs until the next step overwrites them.
        always = self.state + self.outputs
        return {
            "backward": always + self.activations + self.pipe_buffers + self.in_backward,
            "reduction": always + self.in_reduction,
            "update": always + self.in_update,
        }

    @property
    def peak(self) -> int:
        """Most bytes allocated at the same time."""
        return max(self.phases.values())


def memory_of_stages(config: Config, on_gpu: bool = True) -> list[StageMemory]:
    """Count the memory of every stage.

    Args:
        config: a checked configuration; `precision=auto` counts as bf16, and the number of replicas follows from
            `cluster.*`.
        on_gpu: False for the attention path on CPUs.
    """
    return [_stage(config, stage, on_gpu) for stage in range(config.parallel.pp)]


def checkpoint_bytes(config: Config) -> int:
    """Bytes of a checkpoint: masters and optimizer slots, and the weights if they are in half precision."""
    return derive.parameters(config.model) * saved_bytes_per_parameter(config)


def saved_bytes_per_parameter(config: Config) -> int:
    """Bytes of each parameter in a checkpoint."""
    size = computation.element_bytes(config.precision)
    return 4 + _slot_bytes(config) + (size if size < 4 else 0)


def _slot_bytes(config: Config) -> int:
    """Bytes of the optimizer's fp32 slots for each parameter: 8 for Adam's two moments."""
    return 4 * len(optimizers.slots(config.optim.name))


def _stage(config: Config, stage: int, on_gpu: bool) -> StageMemory:
    parallel, size = config.parallel, computation.element_bytes(config.precision)
    dp = derive.data_parallel_size(config, derive.planned_world_size(config))
    count = pipeline.stage_parameters(config)[stage]
    # bf16: every replica holds the whole fp32 sum over micro-batches, into which each gradient goes at once.
    gradients = count * max(size, 4) if computation.sums_in_fp32(config.precision) else count * size
    zero_stage = computation.zero_stage(parallel, config.precision, dp)
    masters = 0 if zero_stage == 0 else 4 * count // dp
    moments = _slot_bytes(config) * count // (1 if zero_stage == 0 else dp)
    activations, outputs, buffers = _running(config, stage, on_gpu)
    in_backward, in_reduction, in_update = _buffers(config, count, dp, on_gpu)
    return StageMemory(
        stage=stage,
        weights=count * size,
        gradients=gradients,
        masters=masters,
        moments=moments,
        activations=activations,
        outputs=outputs,
        pipe_buffers=buffers,
        in_backward=in_backward,
        in_reduction=in_reduction,
        in_update=in_update,
    )


def _buffers(config: Config, count: int, dp: int, on_gpu: bool) -> tuple[int, int, int]:
    """DeepSpeed's buffers of the backward pass, the reduction and the update."""
    size = computation.element_bytes(config.precision)
    share = count // dp
    # Two float64 copies of the part of a gradient that is squared at once.
    squares = 2 * 8 * computation.squared_at_once(on_gpu)
    if computation.sums_in_fp32(config.precision):
        # allreduce_no_retain: the fp32 gradients of the two groups are copied together if they fit a bucket; a larger
        # group is reduced in place.
        is_copied = count <= computation.GRADIENT_BUCKET and dp > 1 and not config.parallel.overlap
        copies = 4 * count if is_copied else 0
        return 0, copies, squares
    if computation.zero_stage(config.parallel, config.precision, dp) == 0:
        if dp == 1:
            return 0, 0, squares
        # Gradients are reduced in copies of at least a bucket; AdamW works parameter by parameter.
        largest = max(derive.parameter_sizes(config.model, config.parallel.tp))
        copied = min(count, computation.GRADIENT_BUCKET + largest)
        return 0, 4 * copied, squares
    # DeepSpeedZeroOptimizer allocates a bucket at the first backward pass of a step, and another one to reduce.
    bucket = size * computation.reduce_bucket_size(config)
    # The update makes an fp32 copy of the averaged share of this replica; the gradients are freed by then.
    update = size * share + 4 * share - size * count
    return bucket, 2 * bucket, max(update, squares - size * count)


def _running(config: Config, stage: int, on_gpu: bool) -> tuple[int, int, int]:
    """Activations, logits and pipe buffers at the peak of the backward passes."""
    model, pp, size = config.model, config.parallel.pp, computation.element_bytes(config.precision)
    layer = LayerSizes.of(config, size, on_gpu)
    micro_batches = derive.grad_accum(
        config.optim,
        derive.data_parallel_size(config, derive.planned_world_size(config)),
        config.optim.global_batch_size,
    )
    chunks = pipeline.num_chunks(config.parallel)
    held = [
        cutting.layers_among(model.num_layers, [chunk])
        for chunk in pipeline.stage_chunks(config)[stage]
    ]
    num_layers = sum(held)
    kept = layer.kept_with(config.parallel.recompute)
    # Each pass keeps its input, which DeepSpeed's schedule clones, and what each layer keeps; Megatron-core's keeps its
    # output as well.
    ends = layer.hidden * (1 if chunks == 1 else 2)
    moments = pipeline.kept_passes(pp, stage, micro_batches, chunks)
    activations, in_flight = max(
        (
            sum(
                passes * (ends + layers * kept) for passes, layers in zip(moment, held, strict=True)
            )
            + max(moment) * layer.shared,
            max(moment),
        )
        for moment in moments
    )
    if num_layers:
        activations += layer.kept - kept  # of the layer that is computed again
    working = layer.working if num_layers else 0
    is_first, is_last = stage == 0, stage == pp - 1
    outputs = 0
    if is_last:
        # The pipeline keeps the outputs of two buffers until they are overwritten; one stage alone keeps none.
        outputs = min(2, micro_batches) * layer.hidden if pp > 1 else 0
        matrix, chunk = _head(config, size, on_gpu)
        if is_first and size == 4:
            # The gradient of the matrix waits for that of the lookup, the last of the backward pass.
            activations += matrix
            matrix = 0
        # The chosen rows and their gradients.
        working = max(working, matrix + chunk + 2 * layer.hidden)
    if is_first and model.embedding_norm:
        activations += in_flight * layer.hidden  # what it reads
    if is_first and model.hidden_dropout > 0:
        activations += in_flight * layer.tokens * model.hidden_size
    if chunks > 1:
        return activations + working, outputs, _interleaved_buffers(config, stage, layer)
    buffers = 0
    if not is_first:
        # The received tensors of each buffer (their clones are counted above), one more pair to receive into, and the
        # gradient to send.
        row_fields = (in_flight + 1) * layer.tokens * computation.ROW_FIELDS * 8
        buffers += (in_flight + 2) * layer.hidden + row_fields
    if not is_last:
        buffers += layer.hidden  # the received gradient
    return activations + working, outputs, buffers


def _interleaved_buffers(config: Config, stage: int, layer: LayerSizes) -> int:
    """What the interleaved schedule has received and not used yet, or sends; and the row fields of its micro-batches."""
    pp, optim = config.parallel.pp, config.optim
    dp = derive.data_parallel_size(config, derive.planned_world_size(config))
    count = derive.grad_accum(optim, dp, optim.global_batch_size)
    group = pipeline.group_size(pp, count)
    # The first stage receives the outputs of the last one, and the last one gradients of the first, before their turn.
    early = group - pp if stage in (0, pp - 1) else 0
    fields = (group + 1) * layer.tokens * computation.ROW_FIELDS * 8
    return (4 + early) * layer.hidden + fields


def _head(config: Config, size: int, on_gpu: bool) -> tuple[int, int]:
    """The fp32 gradient of the tied matrix, and the logits that are held at once (glm/head.py).

    Every position counts as a target: a long [gMASK] blank may hide the whole row.
    """
    model = config.model
    vocab = derive.padded_vocab_size(model) // config.parallel.tp
    tokens = config.optim.micro_batch_size * model.seq_length
    in_place = computation.head_rows_in_place(tokens, vocab, model.hidden_size, on_gpu)
    rows = min(computation.head_rows_at_once(vocab, model.hidden_size), tokens - in_place)
    logits = max(rows * vocab, computation.HEAD_BLOCK if in_place else 0)
    return 4 * vocab * model.hidden_size, logits * (4 if size == 4 else size + 4)
