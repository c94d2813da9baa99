"""What the rest of the trainer knows of an engine: two interfaces, and what hooks see of an update."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from glm.checkpoint.reader import Reader
from glm.checkpoint.writer import Piece
from glm.loss import ObjectiveSums
from train.batches import MicroBatch
from train.plan import StepPlan


@dataclass(frozen=True)
class GradientNorms:
    """Norms of the gradient of one step, before clipping: the same numbers on every rank."""

    total: float
    """Of all parameters."""
    embedding: float
    """Of the word embedding, the tied head's share included."""
    layers: tuple[float, ...]
    """Of each transformer layer, in order."""


class PendingUpdate:
    """An update that is about to be made: gradients are reduced, and neither clipped nor used.

    Args:
        measure: computes the norms; every rank calls it, or none.
    """

    def __init__(self, measure: Callable[[], GradientNorms]) -> None:
        self._measure = measure
        self.vetoes: list[str] = []

    @cached_property
    def norms(self) -> GradientNorms:
        """The gradient's norms. Collective when it is first asked for: all ranks must ask, or none."""
        return self._measure()

    def veto(self, reason: str) -> None:
        """Leave the update out: no weight, moment, step count or gradient carries anything of this step over.

        All ranks must veto, or none: decide from what all know, such as `norms`.
        """
        self.vetoes.append(reason)


UpdateHook = Callable[[PendingUpdate], None]
"""Called on every rank in each step, after the gradients' reduction and before clipping."""


@dataclass(frozen=True)
class StepOutcome:
    """What one optimizer step did, as this rank knows it."""

    sums: ObjectiveSums
    """Weighted loss sums per objective of this rank's rows (empty except on the last stage)."""
    grad_norm: float
    """Global gradient norm before clipping."""
    embedding_sum_of_squares: float
    """This rank's share of the squared norm of the embedding's gradient."""
    was_skipped: bool
    """True if an overflow, a NaN or a veto kept the weights as they were."""
    loss_scale: float | None
    """Loss scale that this step used; None without loss scaling."""
    vetoes: tuple[str, ...] = ()
    """Why hooks have left the update out."""


class TrainingState(Protocol):
    """Everything that training changes: of each named tensor its slots (weights, moments), each as boxes of the whole.

    Which slots a tensor has is declared by its optimizer.
    """

    def shapes(self) -> dict[str, list[int]]:
        """Whole shapes of this rank's parameters."""
        ...

    def slots(self) -> dict[str, list[str]]:
        """What is stored of each of them."""
        ...

    def pieces(self) -> list[Piece]:
        """The boxes that this rank stores: views of live memory, to be copied before the next update."""
        ...

    def numbers(self) -> dict[str, Any]:
        """Step count, counters and loss scaler: one set for the whole run."""
        ...

    def load(self, reader: Reader) -> None:
        """Take all of it from a checkpoint of any layout, freshly built or between two steps."""
        ...

    def load_weights(self, reader: Reader) -> None:
        """Take the weights alone."""
        ...


class Engine(Protocol):
    """A model in training, on this rank."""

    @property
    def state(self) -> TrainingState:
        """What checkpoints store and restore, between steps."""
        ...

    def train_step(self, step: StepPlan, batches: Iterable[MicroBatch]) -> StepOutcome:
        """Train one global batch: forward, backward, reduce, hooks, clip, update."""
        ...

    def evaluate(self, batches: Iterable[MicroBatch], num_micro_batches: int) -> ObjectiveSums:
        """Run forward only; returns this rank's loss sums (empty except on the last stage)."""
        ...

    def add_hook(self, hook: UpdateHook) -> Callable[[], None]:
        """Call `hook` in every step from now on, after the hooks that were added before it.

        Returns:
            What removes it again.
        """
        ...

    def close(self) -> None:
        """Let go of the engine's hooks and buffers."""
        ...
