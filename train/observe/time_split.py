"""Where the time of a step goes, in the steps that are due for a line of details.jsonl, and once a picture of the pipeline.

A step's time runs from the end of the former step's line to the end of its own: what is saved after a step belongs to the
next one. Each rank splits its time into parts that add up (train/observe/step_clock.py); the line has their means over the
ranks. `time/rest` is what belongs to no part: the loop, the exchange of a step's results but for its waiting, and whatever
nobody has marked.

On CPU with gloo a transfer stops the thread that computes, and ranks share cores: the split says where this run's time
goes, not what a GPU would show.
"""

from typing import Any

import torch.distributed as dist

from configs import derive, pipeline
from configs.schema import Config
from train.observe.observers import ObservedStep, Observer
from train.observe.step_clock import Pass, StepClock, Timeline
from train.parts import BACKWARD, DATA, FORWARD, OPTIMIZER, PARTS
from train.session import Session

STEP = "time/step"
REST = "time/rest"
RANKS = "ranks/seconds"
PASSES = "pipeline/passes"

# What a rank does by itself in a step; logging and saving are rank 0's.
_OWN = (DATA, FORWARD, BACKWARD, OPTIMIZER)


class TimeSplit(Observer):
    """Splits the time of the steps that are due. It comes last: a step ends with its `end`.

    Args:
        every_steps: steps between lines of details.jsonl.
        config: of the run.
        session: the open process groups.
    """

    def __init__(self, every_steps: int, config: Config, session: Session) -> None:
        self._every = every_steps
        self._session = session
        self._config = config
        self._clock = StepClock(session.device)
        self._first_step: int | None = None
        self._passes_step: int | None = None

    def begin(self, step: int) -> None:
        """See Observer."""
        if self._first_step is None:
            self._first_step = step
            if self._is_due(step):
                self._clock.start()
        elif self._passes_step is None and self._is_due(step):
            # The pictures of all stages begin at the same moment, as far as ranks can agree on one.
            self._passes_step = step
            self._session.barrier()
            self._clock.mark_origin()

    def end(self, step: ObservedStep) -> dict[str, Any]:
        """See Observer."""
        number = step.progress.step
        details: dict[str, Any] = {}
        if self._clock.is_running:
            timeline = self._clock.lap()
            details = self._split(timeline)
            if number == self._passes_step:
                details[PASSES] = {"step": number, "stages": self._stages(step, timeline.passes)}
        is_next_due = self._is_due(number + 1)
        if self._clock.is_running and not is_next_due:
            self._clock.stop()
        elif not self._clock.is_running and is_next_due:
            self._clock.start()
        return details

    def close(self) -> None:
        """See Observer."""
        self._clock.stop()

    def _is_due(self, step: int) -> bool:
        return step % self._every == 0

    def _split(self, timeline: Timeline) -> dict[str, Any]:
        """Means over the ranks; collective."""
        topology = self._session.topology
        own = [timeline.seconds.get(part, 0.0) for part in (*PARTS, "")]
        # A rank alone writes its place, so the sums are what it wrote.
        of_ranks = [0.0] * topology.world_size
        of_ranks[topology.rank] = sum(timeline.seconds.get(part, 0.0) for part in _OWN)
        sums = self._session.sum([*own, *of_ranks])
        means = [value / topology.world_size for value in sums[: len(own)]]
        names = [*(f"time/{part}" for part in PARTS), REST]
        return {
            STEP: sum(means),
            **dict(zip(names, means, strict=True)),
            RANKS: sums[len(own) :],
        }

    def _stages(self, step: ObservedStep, passes: list[Pass]) -> list[list[dict[str, Any]]]:
        """The passes of each stage, on rank 0 alone; collective."""
        topology = self._session.topology
        own = None
        if topology.tp_rank == topology.dp_rank == 0:
            batch_size = step.plan.num_samples
            count = derive.grad_accum(self._config.optim, topology.dp, batch_size)
            own = named_passes(passes, count, topology.pp, topology.chunks)
        found = [None] * topology.world_size if topology.rank == 0 else None
        dist.gather_object(own, found, dst=0, group=self._session.control_group)
        return [] if found is None else [each for each in found if each is not None]


def named_passes(
    passes: list[Pass], num_micro_batches: int, pp: int, chunks: int
) -> list[dict[str, Any]]:
    """Passes with the micro-batch and the chunk of each, which the schedule tells.

    Args:
        passes: of one stage and step, in order.
        num_micro_batches: of the step.
        pp: pipeline stages.
        chunks: of each stage.
    """
    group = num_micro_batches if chunks == 1 else pipeline.group_size(pp, num_micro_batches)
    order = list(pipeline.forward_order(num_micro_batches, chunks, group))
    orders = {
        FORWARD: iter(order),
        BACKWARD: iter([(number, chunks - 1 - chunk) for number, chunk in order]),
    }
    named: list[dict[str, Any]] = []
    for each in passes:
        micro_batch, chunk = next(orders[each.kind])
        place = {"kind": each.kind, "micro_batch": micro_batch, "chunk": chunk}
        named.append({**place, "start": each.start, "end": each.end})
    return named
