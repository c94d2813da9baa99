"""The default pipeline schedule: DeepSpeed's 1F1B, which every other schedule must equal.

A schedule runs the passes of a step. All of them end it in the same way: tied weights, partial gradients and replicas
are reduced, and DeepSpeed's engine updates.
"""

from collections.abc import Iterator
from typing import Any, Protocol

from train.batches import MicroBatch


class Schedule(Protocol):
    """How a stage runs the micro-batches of a step."""

    def train(self, batches: Iterator[MicroBatch]) -> None:
        """Run forward and backward passes of a global batch, reduce the gradients, and update.

        Args:
            batches: this rank's micro-batches, on its device; as many as the engine's batch size has.
        """
        ...

    def evaluate(self, batches: Iterator[MicroBatch], num_micro_batches: int) -> None:
        """Run forward passes only."""
        ...


class OneForwardOneBackward:
    """DeepSpeed's own schedule; implements `Schedule`.

    Args:
        engine: DeepSpeed's pipeline engine.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def train(self, batches: Iterator[MicroBatch]) -> None:
        """See `Schedule`."""
        self._engine.train_batch(batches)

    def evaluate(self, batches: Iterator[MicroBatch], num_micro_batches: int) -> None:
        """See `Schedule`."""
        self._engine.eval_batch(
            batches, num_micro_batches=num_micro_batches, reduce_output=None, bcast_loss=False
        )
