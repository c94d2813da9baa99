"""The interleaved pipeline schedule: Megatron-core's order of passes over DeepSpeed's module, optimizer and tied weights.

Each stage holds several chunks of the model, so that it waits only a part of the time while the pipeline fills and
drains (Narayanan et al. 2021, section 2.2). Each pass runs DeepSpeed's engine as its own schedule runs a middle stage: the
engine's hooks prepare the optimizer, and gradients come to rest where every other part of this package expects them.
What ends a step is DeepSpeed's as well.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from deepspeed.runtime.engine import DeepSpeedEngine
from torch import Tensor

from configs import derive, pipeline
from configs.schema import Config
from glm.loss import GLMLoss, Labels
from glm.tensor_parallel import parallel_state
from train.batches import MicroBatch
from train.engine.megatron_schedule import Chunk, Transfers, run_interleaved, schedule_config
from train.engine.own_passes import own_passes
from train.session import Session

# A micro-batch, and whether its loss counts.
_Pass = tuple[MicroBatch, bool]


class Interleaved:
    """Megatron-core's interleaved 1F1B; implements `Schedule`.

    Args:
        config: of the run.
        session: the open process groups.
        engine: DeepSpeed's pipeline engine, over a module of several chunks.
        loss: applied to the output of the last part; its `scale` is that of the gradients.
    """

    def __init__(self, config: Config, session: Session, engine: Any, loss: GLMLoss) -> None:
        self._engine = engine
        self._loss = loss
        # On the last stage DeepSpeed would divide by the number of micro-batches, as Megatron-core does already.
        engine._backward_prologue_per_tensor = lambda gradient: gradient
        self._pp = session.topology.pp
        dtype = next(engine.module.parameters()).dtype
        settings = schedule_config(session.topology.chunks, self._pp, dtype)
        settings.grad_scale_func = self._scaled
        tokens = config.optim.micro_batch_size * config.model.seq_length
        if derive.is_sequence_cut(config.parallel):
            tokens //= config.parallel.tp
        like = torch.empty((tokens, config.model.hidden_size), dtype=dtype, device=session.device)
        group = parallel_state.get_pipeline_model_parallel_group()
        self._transfers = Transfers(group, settings, like)
        self._chunks = [Chunk(number, settings) for number in range(session.topology.chunks)]

    def train(self, batches: Iterator[MicroBatch]) -> None:
        """See `Schedule`."""
        with own_passes(self._engine):
            self._run(((batch, True) for batch in batches), self._engine.micro_batches)

    def evaluate(self, batches: Iterator[MicroBatch], num_micro_batches: int) -> None:
        """See `Schedule`. Where micro-batches are too few, the last one runs again, and its loss does not count."""
        self._engine.module.eval()
        count = max(num_micro_batches, self._pp)
        with torch.no_grad():
            self._run(_repeating_the_last(batches, count), count, forward_only=True)

    def _run(
        self, passes: Iterator[_Pass], num_micro_batches: int, forward_only: bool = False
    ) -> None:
        run_interleaved(
            self._forward,
            self._chunks,
            # All chunks share the tensor of a micro-batch's row fields, and with it the plan (glm/row_plan.py).
            itertools.tee(passes, len(self._chunks)),
            num_micro_batches,
            pipeline.group_size(self._pp, num_micro_batches),
            self._transfers,
            forward_only,
        )

    def _forward(self, passes: Iterator[_Pass], chunk: Chunk) -> tuple[Tensor, Any]:
        ((tokens, fields), labels), counts = next(passes)
        self._engine.module.activate(chunk.vp_stage)
        received = tokens if chunk.received is None else chunk.received
        outputs = DeepSpeedEngine.forward(self._engine, (received, fields))
        hidden = outputs if isinstance(outputs, Tensor) else outputs[0]
        return hidden, functools.partial(self._loss_of, labels if counts else None)

    def _loss_of(self, labels: Labels | None, hidden: Tensor) -> tuple[Tensor, None]:
        loss = hidden.new_zeros(()) if labels is None else self._loss(hidden, labels)
        return loss, None

    def _scaled(self, loss: Tensor) -> Tensor:
        return loss if self._loss.scale == 1.0 else loss * self._loss.scale


def _repeating_the_last(batches: Iterator[MicroBatch], count: int) -> Iterator[_Pass]:
    """The micro-batches, which count, and the last one again until there are enough."""
    last = None
    given = 0
    for last in batches:
        yield last, True
        given += 1
    assert last is not None, "there is a micro-batch to evaluate"
    for _ in range(count - given):
        yield last, False
