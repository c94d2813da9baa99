"""Model of the seconds per step on given GPUs; every assumption is a constant with its source.

The time of a stage for one micro-batch is that of its matrix products at a fixed efficiency, of its memory traffic at a
share of the data sheet's bandwidth, and of its tensor-parallel sums over NVLink. A step is 1F1B of the slowest stage,
then the reduction of the gradients and the update, which DeepSpeed does not overlap. FLOPs, and MFU and HFU of a given
time, are exact (configs/derive.py); docs/estimates.md compares both with published runs.
"""

from dataclasses import dataclass

from configs import computation, derive
from configs.hardware import Gpu
from configs.schema import AttentionPath, Config, Recompute

# Share of the peak that the matrix products of a layer reach, and share of the nominal bandwidths: fitted to the step
# time of GLM-130B (88.5 s, A100-40G, 2022), and used unchanged for everything else.
MATMUL_EFFICIENCY = 0.63
BANDWIDTH_EFFICIENCY = 0.8
# Reads and writes of whole hidden states, of sharded ones and of inner tensors in the forward pass of a layer, counted
# from glm/layer.py (two norms, two sums with scaling, rotary positions, GeGLU); fused kernels would need fewer.
_HIDDEN_TRIPS, _CUT_TRIPS, _INNER_TRIPS = 12, 16, 6
# The same for materialised attention scores, in bytes per score: product, mask, softmax in fp32, cast, product.
_SCORE_BYTES = 26


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step, by cause."""

    micro_batch: float
    """Forward and backward pass of one micro-batch on the slowest stage, without communication."""
    recompute: float
    """The part of that which recomputes the forward pass of the layers."""
    tensor_parallel: float
    """Sums over the tensor-parallel ranks for one micro-batch."""
    pipeline_traffic: float
    """Sending hidden states and gradients of one micro-batch."""
    num_micro_batches: int
    pp: int
    gradients: float
    """Reduction over the replicas and gathering of the weights."""
    update: float
    """The optimizer step."""

    @property
    def bubble(self) -> float:
        """Seconds in which a stage waits for the pipeline to fill and drain."""
        return (self.pp - 1) * self._slot

    @property
    def total(self) -> float:
        """Seconds of the whole step."""
        slots = derive.pipeline_slots(self.pp, self.num_micro_batches) * self._slot
        return slots + self.gradients + self.update

    @property
    def _slot(self) -> float:
        return self.micro_batch + self.tensor_parallel + self.pipeline_traffic


@dataclass(frozen=True)
class Transformer:
    """The sizes of a Transformer that the speed model needs; not only of a GLM."""

    num_layers: int
    hidden_size: int
    inner_size: int
    """Inner width of the feed-forward: 4 h in a GPT; a gated feed-forward has two tensors of this width."""
    weights_per_layer: float
    num_heads: int
    vocab_size: int
    seq_length: int
    parameters: float
    materialises_scores: bool

    @classmethod
    def of(cls, config: Config, on_gpu: bool = True) -> "Transformer":
        """Return the sizes of a configuration's GLM."""
        model = config.model
        return cls(
            num_layers=model.num_layers,
            hidden_size=model.hidden_size,
            inner_size=model.ffn_size,
            weights_per_layer=derive.matrix_weights(model),
            num_heads=model.num_heads,
            vocab_size=derive.padded_vocab_size(model),
            seq_length=model.seq_length,
            parameters=float(derive.parameters(model)),
            materialises_scores=computation.attention_path(model, on_gpu)[0]
            is AttentionPath.reference,
        )

    def flops_per_sample(self, recompute: Recompute = Recompute.none) -> float:
        """Floating-point operations to train one row; selective recompute repeats no matrix product."""
        return derive.transformer_flops(
            self.num_layers,
            self.hidden_size,
            self.weights_per_layer,
            self.vocab_size,
            self.seq_length,
            recompute is Recompute.full,
        )


@dataclass(frozen=True)
class Layout:
    """How the network is distributed over the ranks."""

    tp: int
    pp: int
    dp: int
    gpus_per_node: int
    micro_batch_size: int
    recompute: Recompute
    size: int
    """Bytes of an activation's element."""
    gradient_bytes: int
    """Bytes per gradient element that are communicated."""

    @classmethod
    def of(cls, config: Config) -> "Layout":
        """Return the layout of a configuration on its cluster."""
        dp = derive.data_parallel_size(config, derive.planned_world_size(config))
        precision, size = config.precision, computation.element_bytes(config.precision)
        return cls(
            tp=config.parallel.tp,
            pp=config.parallel.pp,
            dp=dp,
            gpus_per_node=derive.ranks_per_node(config),
            micro_batch_size=config.optim.micro_batch_size,
            recompute=config.parallel.recompute,
            size=size,
            gradient_bytes=4 if computation.sums_in_fp32(precision) else size,
        )


def step_time(network: Transformer, layout: Layout, gpu: Gpu, global_batch_size: int) -> StepTime:
    """Model the seconds of a step."""
    micro_batches = max(global_batch_size // (layout.micro_batch_size * layout.dp), 1)
    tokens = layout.micro_batch_size * network.seq_length
    hidden_bytes = tokens * network.hidden_size * layout.size
    within_node = layout.tp <= layout.gpus_per_node
    bandwidth = gpu.node_gb_per_second if within_node else gpu.network_gb_per_second
    # A ring all-reduce moves 2 (n - 1) / n times the data; forward and backward pass have two each, recompute two more.
    ring = 2 * (layout.tp - 1) / layout.tp
    is_full = layout.recompute is Recompute.full
    layer_sums = _seconds((6 if is_full else 4) * ring * hidden_bytes, bandwidth)
    products, traffic = _layer_seconds(network, layout, gpu, tokens)
    layer = products + traffic
    # Selective recompute repeats what is no matrix product.
    again = {Recompute.none: 0.0, Recompute.selective: traffic, Recompute.full: layer}[
        layout.recompute
    ]
    head = _head_seconds(network, layout, gpu, tokens)
    # All stages wait for the slowest: one with the most layers, or the last, which has fewer layers and the head. In a
    # small model with a large vocabulary the head takes longer than several layers.
    _, layers, head = max(
        (layers * (3 * layer + again + layer_sums) + heads * head, layers, heads * head)
        for layers, heads in _stages(network.num_layers, layout.pp)
    )
    spans_nodes = layout.tp * layout.pp * layout.dp > layout.gpus_per_node
    far = gpu.network_gb_per_second if spans_nodes else gpu.node_gb_per_second
    parameters = network.parameters / (layout.tp * layout.pp)
    replicas = (layout.dp - 1) / layout.dp
    reduced = replicas * parameters * (2 * layout.gradient_bytes + layout.size)
    # Masters and moments are read and written, weights are written.
    updated = parameters / layout.dp * 28
    return StepTime(
        micro_batch=layers * (3 * layer + again) + head,
        recompute=layers * again,
        tensor_parallel=layers * layer_sums,
        pipeline_traffic=_seconds(2 * hidden_bytes, far) if layout.pp > 1 else 0.0,
        num_micro_batches=micro_batches,
        pp=layout.pp,
        gradients=_seconds(reduced, far),
        update=_seconds(updated, gpu.memory_gb_per_second),
    )


def flops_share(network: Transformer, samples_per_second: float, gpus: int, gpu: Gpu) -> float:
    """MFU: the model's operations without recompute, over the peak of all GPUs. Chowdhery et al. 2022."""
    return network.flops_per_sample() * samples_per_second / (gpus * gpu.peak_tflops * 1e12)


def _stages(num_layers: int, pp: int) -> list[tuple[int, int]]:
    """Number of layers and of heads on every stage."""
    return [
        (derive.layers_of_stage(num_layers, pp, stage), int(stage == pp - 1)) for stage in range(pp)
    ]


def _layer_seconds(
    network: Transformer, layout: Layout, gpu: Gpu, tokens: int
) -> tuple[float, float]:
    """Seconds of the forward pass of one layer on one rank: its matrix products, and its other memory traffic."""
    flops = 2 * tokens * network.weights_per_layer
    flops += 4 * tokens * network.seq_length * network.hidden_size
    hidden = tokens * network.hidden_size * layout.size
    inner = tokens * network.inner_size * layout.size
    moved = _HIDDEN_TRIPS * hidden + (_CUT_TRIPS * hidden + _INNER_TRIPS * inner) / layout.tp
    if network.materialises_scores:
        moved += _SCORE_BYTES * tokens * network.seq_length * network.num_heads / layout.tp
    products = flops / layout.tp / (gpu.peak_tflops * 1e12 * MATMUL_EFFICIENCY)
    return products, _seconds(moved, gpu.memory_gb_per_second)


def _head_seconds(network: Transformer, layout: Layout, gpu: Gpu, tokens: int) -> float:
    """Seconds of the forward and backward pass of the output matrix on one rank; it is not recomputed."""
    flops = 6 * tokens * network.hidden_size * network.vocab_size / layout.tp
    return flops / (gpu.peak_tflops * 1e12 * MATMUL_EFFICIENCY)


def _seconds(moved_bytes: float, gb_per_second: float) -> float:
    return moved_bytes / (gb_per_second * 1e9 * BANDWIDTH_EFFICIENCY)
