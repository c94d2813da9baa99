"""The whole model on one stage: its passes run one after the other, and there is nothing to schedule.

DeepSpeed would run them as the instructions of a pipeline, which costs a hundredth of a small model's step. The bits are the
same. What ends a step is DeepSpeed's, as in the other schedules.
"""

import functools
from collections.abc import Iterator
from typing import Any

import torch
from deepspeed.runtime.engine import DeepSpeedEngine
from torch import Tensor

from glm.loss import GLMLoss
from train.batches import MicroBatch
from train.engine.own_passes import own_passes
from train.parts import BACKWARD, FORWARD, part


class OneStage:
    """Passes without a pipeline; implements `Schedule`.

    Args:
        engine: DeepSpeed's pipeline engine, over the whole model.
        loss: applied to the model's output; its `scale` is that of the gradients.
    """

    def __init__(self, engine: Any, loss: GLMLoss) -> None:
        self._engine = engine
        self._loss = loss
        self._model = engine.module
        if hasattr(engine.optimizer, "averaged_gradients"):
            # ZeRO-1's wrapper of fp32 and fp16 is prepared by hooks on the output, which would divide by the number of
            # micro-batches, as is done here.
            engine._backward_prologue_per_tensor = lambda gradient: gradient
            self._model = functools.partial(DeepSpeedEngine.forward, engine)

    def train(self, batches: Iterator[MicroBatch]) -> None:
        """See `Schedule`."""
        with own_passes(self._engine):
            for batch in batches:
                with part(FORWARD):
                    loss = self._forward(batch) / self._engine.micro_batches
                with part(BACKWARD):
                    (loss if self._loss.scale == 1.0 else loss * self._loss.scale).backward()

    def evaluate(self, batches: Iterator[MicroBatch], num_micro_batches: int) -> None:
        """See `Schedule`."""
        self._engine.module.eval()
        with torch.no_grad():
            for batch in batches:
                self._forward(batch)

    def _forward(self, batch: MicroBatch) -> Tensor:
        inputs, labels = batch
        return self._loss(self._model(inputs), labels)
