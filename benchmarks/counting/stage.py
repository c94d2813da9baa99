"""From the counts of single entries to a stage's micro-batch and step."""

from collections import Counter
from dataclasses import dataclass

from benchmarks.counting.gradients import GradientCost
from benchmarks.counting.network import NetworkCost
from benchmarks.counting.tally import Tally
from configs import computation, cutting, derive, pipeline
from configs.schema import Config


@dataclass(frozen=True)
class StageCost:
    """One rank of a stage."""

    stage: int
    layers: int
    parameters: int
    """That a rank holds."""
    micro_batch: Tally
    """Forward, backward, handling of gradients, transfers."""
    step: Tally
    """All micro-batches of a replica's step, and what follows them; without the collectives between replicas."""
    num_micro_batches: int


def stage_costs(config: Config, network: NetworkCost, gradients: GradientCost) -> list[StageCost]:
    """Add up what each stage holds."""
    model = config.model
    dp = derive.data_parallel_size(config, derive.planned_world_size(config))
    count = derive.grad_accum(config.optim, dp, config.optim.global_batch_size)
    parameters = pipeline.stage_parameters(config)
    found = []
    for stage, chunks in enumerate(pipeline.stage_chunks(config)):
        entries = [entry for chunk in chunks for entry in chunk]
        layers = cutting.layers_among(model.num_layers, chunks)
        micro_batch = network.plan + network.layer.both * layers
        if 0 in entries:
            micro_batch += network.embedding.both
        if model.num_layers + 2 in entries:
            micro_batch += network.head.both
        micro_batch += Tally(other=gradients.of(gradients.micro_batch, parameters[stage]))
        micro_batch += _transfers(config, stage)
        after = Tally(other=gradients.of(gradients.step, parameters[stage]))
        step = micro_batch * count + after
        found.append(StageCost(stage, layers, parameters[stage], micro_batch, step, count))
    return found


def _transfers(config: Config, stage: int) -> Tally:
    """Hidden states, row fields and gradients that a stage sends; it receives as many.

    The interleaved schedule sends once for each part of the stage, and round from the last stage to the first; row
    fields travel with 1F1B alone.
    """
    parallel = config.parallel
    chunks, is_first, is_last = pipeline.num_chunks(parallel), stage == 0, stage == parallel.pp - 1
    tokens = config.optim.micro_batch_size * config.model.seq_length
    hidden = tokens * config.model.hidden_size * computation.element_bytes(config.precision)
    hidden //= parallel.tp if derive.is_sequence_cut(parallel) else 1
    fields = tokens * computation.ROW_FIELDS * 8 if chunks == 1 else 0
    forward, back = chunks - is_last, chunks - is_first
    sends = forward * (2 if fields else 1) + back
    size = forward * (hidden + fields) + back * hidden
    if sends == 0:
        return Tally()
    return Tally(collectives=Counter(send=sends), collective_bytes=Counter(send=size))
