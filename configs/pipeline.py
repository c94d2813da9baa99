"""The two pipeline schedules as arithmetic, for training and estimates: chunks, groups of micro-batches, waiting, memory.

With parallel.schedule=interleaved a stage holds several chunks of the model, and a pass goes round the stages once for
each (Narayanan et al. 2021, section 2.2). A stage runs a group of micro-batches through its first chunk, then the same
group through the next one. What `train` executes is Megatron-core's schedule; here is what `launch`, which must not
import it, calculates with. Tests compare the two.
"""

from collections.abc import Iterator
from functools import lru_cache

from configs import cutting
from configs.schema import Config, ParallelConfig, PipelineSchedule

DEFAULT_CHUNKS = 2


def is_interleaved(parallel: ParallelConfig) -> bool:
    """True with parallel.schedule=interleaved."""
    return parallel.schedule is PipelineSchedule.interleaved


def num_chunks(parallel: ParallelConfig) -> int:
    """Parts of the model on each stage: 1 with 1F1B."""
    return parallel.chunks or DEFAULT_CHUNKS if is_interleaved(parallel) else 1


def stage_chunks(config: Config) -> list[list[range]]:
    """Of each stage its chunks, in the order in which a pass meets them; see `cutting.stage_entries`."""
    parallel, model = config.parallel, config.model
    head = cutting.head_layers(model)
    return cutting.stage_entries(model.num_layers, parallel.pp, num_chunks(parallel), head)


def stage_parameters(config: Config) -> list[int]:
    """Parameters that one rank of each stage holds."""
    parallel = config.parallel
    return cutting.stage_parameters(config.model, parallel.pp, parallel.tp, num_chunks(parallel))


def group_size(pp: int, num_micro_batches: int) -> int:
    """Micro-batches that a stage runs through one chunk before it turns to the next one.

    The fewer, the less is kept. Every group must fill the pipeline, the last one included, so it is the smallest size
    from `pp` on that leaves no remainder or one of at least `pp`. The whole step in one group always works.

    Args:
        pp: pipeline stages.
        num_micro_batches: of a step; at least `pp`.
    """
    for size in range(pp, num_micro_batches + 1):
        rest = num_micro_batches % size
        if rest == 0 or rest >= pp:
            return size
    raise ValueError(f"{num_micro_batches} micro-batches do not fill {pp} stages")


def forward_order(num_micro_batches: int, chunks: int, group: int) -> Iterator[tuple[int, int]]:
    """(micro-batch, chunk) of each forward pass of a stage, in order; backward passes come with the chunks reversed."""
    for first in range(0, num_micro_batches, group):
        members = range(first, min(first + group, num_micro_batches))
        for chunk in range(chunks):
            for micro_batch in members:
                yield micro_batch, chunk


def warm_up_passes(pp: int, stage: int, num_micro_batches: int, chunks: int) -> int:
    """Forward passes of a stage before its first backward pass."""
    if chunks == 1:
        return min(pp - stage - 1, num_micro_batches)
    passes = 2 * (pp - stage - 1) + (chunks - 1) * group_size(pp, num_micro_batches)
    return min(passes, num_micro_batches * chunks)


@lru_cache(maxsize=4096)
def kept_passes(
    pp: int, stage: int, num_micro_batches: int, chunks: int
) -> tuple[tuple[int, ...], ...]:
    """What a stage keeps for backward passes, whenever that is the most of any chunk.

    Returns:
        The number of kept passes of each chunk, for every moment of the step that keeps no less than another one of
        every chunk.
    """
    group = num_micro_batches if chunks == 1 else group_size(pp, num_micro_batches)
    order = list(forward_order(num_micro_batches, chunks, group))
    ahead = warm_up_passes(pp, stage, num_micro_batches, chunks)
    kept = [0] * chunks
    moments = set[tuple[int, ...]]()
    for number, (_, chunk) in enumerate(order):
        kept[chunk] += 1
        moments.add(tuple(kept))
        if number >= ahead:
            kept[chunks - 1 - order[number - ahead][1]] -= 1
    return tuple(
        moment
        for moment in moments
        if not any(
            other != moment and all(one >= two for one, two in zip(other, moment, strict=True))
            for other in moments
        )
    )


def slots(pp: int, num_micro_batches: int, chunks: int = 1) -> float:
    """Length of a step in micro-batch times of one stage, with those in which it waits: m + (p - 1) / v."""
    return num_micro_batches + (pp - 1) / chunks


def bubble(pp: int, num_micro_batches: int, chunks: int = 1) -> float:
    """Idle share of a step: (p - 1) / v of m + (p - 1) / v. GLM-130B, appendix B.4; Narayanan et al. 2021, 2.2."""
    return (pp - 1) / chunks / slots(pp, num_micro_batches, chunks)
