"""Model of the seconds per step on given GPUs; every assumption is a constant with its source.

The time of a stage for one micro-batch is that of its matrix products and attention, of its memory traffic, of adding
up gradients, and of its tensor-parallel sums and transfers, each at a fixed share of the data sheet's rate (rates.py),
from counted operations and bytes (traffic.py); what runs beside products is left out only where a layout says so. A
step is the pipeline of the slowest stage, then the reduction of the gradients and the update. FLOPs, and MFU and HFU
of a given time, are exact (configs/derive.py); docs/estimates.md compares both with published runs.
"""

from dataclasses import dataclass

from configs import cutting
from configs.hardware import Gpu
from launch.estimate.layer_time import head_seconds, layer_seconds
from launch.estimate.network import Layout, Transformer
from launch.estimate.overlap import waited_for
from launch.estimate.rates import Rates


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step, by cause."""

    micro_batch: float
    """Forward and backward pass of one micro-batch on the slowest stage, without communication."""
    recompute: float
    """The part of that which recomputes the forward pass of the layers."""
    accumulation: float
    """The part of it that adds up gradients."""
    tensor_parallel: float
    """Sums over the tensor-parallel ranks for one micro-batch."""
    pipeline_traffic: float
    """Sending hidden states and gradients of one micro-batch."""
    num_micro_batches: int
    pp: int
    chunks: int
    gradients: float
    """Reduction over the replicas and gathering of the weights."""
    update: float
    """The optimizer step, and the norm before it."""

    @property
    def bubble(self) -> float:
        """Seconds in which a stage waits for the pipeline to fill and drain: (p - 1) / v micro-batches."""
        return (self.pp - 1) / self.chunks * self._slot

    @property
    def total(self) -> float:
        """Seconds of the whole step."""
        return self.num_micro_batches * self._slot + self.bubble + self.gradients + self.update

    @property
    def _slot(self) -> float:
        return self.micro_batch + self.tensor_parallel + self.pipeline_traffic


def step_time(network: Transformer, layout: Layout, gpu: Gpu, global_batch_size: int) -> StepTime:
    """Model the seconds of a step."""
    rates = Rates.of(gpu)
    micro_batches = max(global_batch_size // (layout.micro_batch_size * layout.dp), 1)
    layer = layer_seconds(network, layout, rates)
    head = head_seconds(network, layout, rates)
    # All stages wait for the slowest: one with most layers, or the last with fewer layers and the head, which costs as
    # much as several layers in a small model with a large vocabulary.
    _, layers, head = max(
        (layers * (layer.computing + layer.sums) + heads * head, layers, heads * head)
        for layers, heads in _stages(network, layout)
    )
    spans_nodes = layout.tp * layout.pp * layout.dp > layout.gpus_per_node
    far = rates.network if spans_nodes else rates.node
    parameters = network.parameters / (layout.tp * layout.pp)
    replicas = (layout.dp - 1) / layout.dp
    pass_seconds = layers * (layer.computing + layer.sums) + head
    reduction = replicas * parameters * layout.gradient_bytes / far
    gathering = replicas * parameters * layout.size / far
    between = (
        waited_for(layout, micro_batches, pass_seconds, reduction, gathering)
        if layout.overlap
        # A sum on all replicas moves everything twice.
        else (2 * reduction + gathering) * (1 - layout.hidden_reduction)
    )
    moved = parameters * (network.traffic.step + network.traffic.update / layout.dp)
    added_up = parameters * network.traffic.gradients / rates.memory
    return StepTime(
        micro_batch=layers * layer.computing + head + added_up,
        recompute=layers * layer.recompute,
        accumulation=added_up,
        tensor_parallel=layers * layer.sums,
        pipeline_traffic=_transfers(network, layout, micro_batches) / far,
        num_micro_batches=micro_batches,
        pp=layout.pp,
        chunks=layout.chunks,
        gradients=between,
        update=moved / rates.memory,
    )


def flops_share(network: Transformer, samples_per_second: float, gpus: int, gpu: Gpu) -> float:
    """MFU: the operations of the model without recompute, over the peak of all GPUs. Chowdhery et al. 2022."""
    return network.flops_per_sample() * samples_per_second / (gpus * gpu.peak_tflops * 1e12)


def _stages(network: Transformer, layout: Layout) -> list[tuple[int, int]]:
    """Layers and heads of every stage."""
    num_layers, parts = network.num_layers, layout.pp * layout.chunks
    sizes: tuple[int, ...] = (num_layers // parts,) * parts
    if layout.ends_count:
        sizes = cutting.layers_of_parts(num_layers, parts, network.head_layers)
    return [
        (sum(sizes[stage :: layout.pp]), int(stage == layout.pp - 1)) for stage in range(layout.pp)
    ]


def _transfers(network: Transformer, layout: Layout, micro_batches: int) -> float:
    """Bytes for which a middle stage waits, per micro-batch.

    Each micro-batch brings and takes hidden states and gradients, once per chunk. Blocking transfers are all waited
    for; beside computation only those that fill and drain the pipeline are.
    """
    if layout.pp == 1:
        return 0.0
    hidden = layout.micro_batch_size * network.seq_length * network.hidden_size * layout.size
    size = 4 * hidden / (layout.tp if layout.sequence else 1)
    if layout.chunks == 1:
        return size
    return size * (layout.pp - 1) / micro_batches
