"""The real layers of a configuration, one tensor-parallel rank of them, run on meta tensors and counted."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.counting.attention import flex_counted_by
from benchmarks.counting.counter import counting
from benchmarks.counting.rows import all_targets
from benchmarks.counting.tally import Tally
from configs import computation, derive
from configs.objectives import objectives_of
from configs.schema import Config, Precision, Recompute
from glm.loss import GLMLoss
from glm.model import layer_list
from train.batches import MicroBatch
from train.distributed import fake_session
from train.engine.recompute import checkpoint_function
from train.topology import Topology

DTYPES = {
    Precision.auto: torch.bfloat16,
    Precision.bf16: torch.bfloat16,
    Precision.fp16: torch.float16,
    Precision.fp32: torch.float32,
}


@dataclass(frozen=True)
class Passes:
    """One entry of the model's list."""

    forward: Tally
    backward: Tally
    """What is recomputed included."""

    @property
    def both(self) -> Tally:
        """Forward and backward pass."""
        return self.forward + self.backward


@dataclass(frozen=True)
class NetworkCost:
    """One micro-batch on one rank."""

    plan: Tally
    """What the first layer of a stage derives from the row fields for all of them."""
    embedding: Passes
    layer: Passes
    head: Passes
    """Final norm, tied head and loss."""


def count_network(config: Config) -> NetworkCost:
    """Count the entries of a configuration's model, each run alone with gradients that are empty before."""
    # Meta tensors stand for CUDA's, but do not say so: what `auto` means there is said here.
    path, _ = computation.attention_path(config.model, on_gpu=True)
    config = replace(config, model=replace(config.model, attention=path))
    topology = Topology.from_config(config.parallel, 0, config.parallel.tp * config.parallel.pp)
    with fake_session(topology), torch.device("meta"):
        return _count(config, DTYPES[config.precision])


def _count(config: Config, dtype: torch.dtype) -> NetworkCost:
    is_cut = derive.is_sequence_cut(config.parallel)
    entries = layer_list(config.model, config.seed, is_cut)
    embedding, layer, norm = (
        entry.cls(**entry.kwargs).to(dtype).train()
        for entry in (entries[0], entries[2], entries[-2])
    )
    embedding.gradient_shrink = 0.1
    head, batch = entries[-1].forward, _on_meta(config)
    assert head is not None
    inputs, labels = batch
    fields = inputs[1]
    loss = GLMLoss(len(objectives_of(config.objective)))
    loss.embedding = embedding

    def run_layer(given: Tensor) -> Tensor:
        if config.parallel.recompute is not Recompute.none:
            return checkpoint_function(config.parallel.recompute)(layer, (given, fields))[0]
        return layer((given, fields))[0]

    def run_head(given: Tensor) -> Tensor:
        return loss(head(embedding, norm((given, fields))), labels)

    def count(run: Callable[[Tensor], Tensor], given: Tensor) -> Passes:
        for module in (embedding, layer, norm):
            module.zero_grad(set_to_none=True)
        return _passes(run, given)

    with torch.no_grad():
        hidden = embedding(inputs)[0].requires_grad_()
    first, later = (count(run_layer, hidden) for _ in range(2))
    return NetworkCost(
        plan=first.forward - later.forward,
        embedding=count(lambda tokens: embedding((tokens, fields))[0], inputs[0]),
        layer=later,
        head=count(run_head, hidden),
    )


def _passes(run: Callable[[Tensor], Tensor], given: Tensor) -> Passes:
    given.grad = None
    with counting() as counter, flex_counted_by(counter):
        output = run(given)
        forward = counter.take()
        gradient = torch.empty_like(output)
        output.backward(gradient)
        return Passes(forward, counter.take())


def _on_meta(config: Config) -> MicroBatch:
    """A micro-batch on the device that stands for the GPU."""
    inputs, labels = all_targets(config.model, config.optim.micro_batch_size)
    on_meta: Any = tuple(tuple(tensor.to("meta") for tensor in part) for part in (inputs, labels))
    return on_meta
