"""The engine as the rest of the trainer sees it: two interfaces, and the record of an update that hooks receive."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from glm.checkpoint.reader import Reader
from glm.checkpoint.writer import Piece
from glm.loss import ObjectiveSums
from train.batches import MicroBatch
from train.plan import StepPlan


@dataclass(frozen=True)
class GradientNorms:
    """Norms of the gradient of one step, before clipping: the same numbers on every rank."""

    total: float
    """Norm over all parameters."""
    embedding: float
    """Norm of the word embedding's gradient, including the tied head's contribution."""
    layers: tuple[float, ...]
    """Norm of each transformer layer, in order."""


@dataclass(frozen=True)
class Measured:
    """What one pass over the reduced gradient of a step, and one exchange, have shown."""

    norms: GradientNorms
    is_finite: bool
    """True if the losses and every gradient of every rank are finite, also in copies that the norms do not count."""
    embedding_share: float
    """This rank's share of the squared norm of the embedding's gradient."""


class PendingUpdate:
    """An update that is about to be made: gradients are reduced, but not clipped or applied yet.

    The gradient is measured at most once: what a hook reads is what the update then clips by, so a hook that changes
    gradients must do so before anybody reads.

    Args:
        measure: measures the gradient. Collective: every rank calls it, or none does.
    """

    def __init__(self, measure: Callable[[], Measured]) -> None:
        self._measure = measure
        self.vetoes: list[str] = []
        self.known: Measured | None = None
        """What was measured so far; None: nobody has asked."""

    @property
    def measured(self) -> Measured:
        """The measurement. The first access is collective: all ranks must read it, or none."""
        if self.known is None:
            self.known = self._measure()
        return self.known

    @property
    def norms(self) -> GradientNorms:
        """The gradient's norms; collective as `measured`."""
        return self.measured.norms

    @property
    def is_finite(self) -> bool:
        """Whether losses and gradients are finite; collective as `measured`. If they are not, the step is skipped anyway."""
        return self.measured.is_finite

    def veto(self, reason: str) -> None:
        """Skip the update: weights, moments and step counts stay as they were, and the gradients are discarded.

        All ranks must veto, or none. So decide from values that are equal on all ranks, such as `norms`.
        """
        self.vetoes.append(reason)


UpdateHook = Callable[[PendingUpdate], None]
"""Called on every rank in each step, after gradients are reduced and before they are clipped."""


LayerWatch = Callable[[int, Tensor], None]
"""Called with the number of a layer in the whole model, from 0, and its output for one micro-batch: (tokens, hidden), under
sequence parallelism this rank's share of the tokens."""

GradientWatch = Callable[[GradientNorms], None]
"""Called in each step with the norms of the gradient before clipping, on every rank with the same numbers."""

RowWatch = Callable[[Tensor], None]
"""Called with the sums of weighted losses and of weights of the rows of a micro-batch, in order: (2, batch) fp64."""


@dataclass(frozen=True)
class StepOutcome:
    """The result of one optimizer step, as this rank knows it."""

    sums: ObjectiveSums
    """Weighted loss sums per objective of this rank's rows (empty except on the last stage)."""
    grad_norm: float
    """Global gradient norm before clipping."""
    embedding_sum_of_squares: float
    """This rank's share of the squared norm of the embedding's gradient."""
    was_skipped: bool
    """True if the update was skipped because of an overflow, a NaN or a veto."""
    loss_scale: float | None
    """Loss scale that this step used; None without loss scaling."""
    vetoes: tuple[str, ...] = ()
    """The reasons that hooks gave for skipping the update."""
    norms: GradientNorms | None = None
    """The gradient's norms, not finite where the gradient was not. None: nobody measured them, in fp16 or in fp32 under
    ZeRO-1 on several replicas, where only a hook that reads them has them measured."""


@dataclass(frozen=True)
class HeldWeight:
    """A parameter of this rank's stage, in training precision."""

    name: str
    """In the whole model."""
    is_cut: bool
    """True if each tensor-parallel rank holds a part of its own; False: the whole."""
    values: Tensor
    """The parameter itself, on its device."""


@dataclass(frozen=True)
class HeldBytes:
    """Bytes of the tensors that a rank holds from step to step; what several names share counts once."""

    weights: int
    """In training precision."""
    gradients: int
    """While micro-batches add to them."""
    optimizer: int
    """Masters and slots; those of this replica's partition."""


class TrainingState(Protocol):
    """Everything that training changes: the slots (weights, moments) of each named tensor, as boxes of the whole tensor.

    The optimizer declares which slots a tensor has.
    """

    def shapes(self) -> dict[str, list[int]]:
        """Full shapes of this rank's parameters, by name."""
        ...

    def slots(self) -> dict[str, list[str]]:
        """Slots that are stored for each of this rank's parameters, by name."""
        ...

    def pieces(self) -> list[Piece]:
        """The boxes that this rank stores: views of memory in use, to be copied before the next update."""
        ...

    def numbers(self) -> dict[str, Any]:
        """Step count, counters and loss scaler: one set for the whole run."""
        ...

    def load(self, reader: Reader) -> None:
        """Load the whole state from a checkpoint of any layout, into a fresh engine or between two steps."""
        ...

    def load_weights(self, reader: Reader) -> None:
        """Load the weights only."""
        ...


class Engine(Protocol):
    """This rank's part of a model in training."""

    @property
    def state(self) -> TrainingState:
        """The state that checkpoints store and restore, between steps."""
        ...

    def train_step(self, step: StepPlan, batches: Iterable[MicroBatch]) -> StepOutcome:
        """Train one global batch: forward, backward, reduce, hooks, clip, update."""
        ...

    def evaluate(self, batches: Iterable[MicroBatch], num_micro_batches: int) -> ObjectiveSums:
        """Run forward only; returns this rank's loss sums (empty except on the last stage)."""
        ...

    def logits(self, tokens: Tensor, fields: Tensor) -> Tensor | None:
        """Compute the logits of a few rows of any length, without dropout, between two steps.

        Collective over the ranks of one replica; other replicas need not take part. Nothing of the training changes.

        Args:
            tokens: (batch, seq) ids, the same on all these ranks; with sequence parallelism tp divides batch * seq.
            fields: (batch, 6, seq) likewise; the target field says where logits are wanted.

        Returns:
            (targets, vocab) fp32, in row order, on the last stage; None on the others.
        """
        ...

    def weights(self) -> list[HeldWeight]:
        """All parameters of this rank's stage, in an order of its own."""
        ...

    def settle(self) -> None:
        """Wait for weights that other replicas still send, before anything but a forward pass reads them."""
        ...

    def add_hook(self, hook: UpdateHook) -> Callable[[], None]:
        """Call `hook` in every step from now on, after the hooks that were added before it.

        Returns:
            A function that removes the hook.
        """
        ...

    def watch_layers(self, watch: LayerWatch | None) -> None:
        """Show a function the output of each layer of this rank in the forward passes of training; None: no longer.

        A pass is shown once, also where layers are computed again. What is watched changes no bit of a step.
        """
        ...

    def watch_gradient(self, watch: GradientWatch | None) -> None:
        """Show a function the gradient's norms of each step, also where only this asks for them; None: no longer.

        Collective: all ranks have a function, or none. Unlike a hook that reads the norms it leaves a step and its
        outcome as they are without it.
        """
        ...

    def watch_rows(self, watch: RowWatch | None) -> None:
        """Show a function the losses of each row, on the last stage, in training and evaluation; None: no longer."""
        ...

    def held_bytes(self) -> HeldBytes:
        """Memory of weights, gradients and optimizer; within a hook, when the gradients are there."""
        ...

    def close(self) -> None:
        """Release the engine's hooks and buffers."""
        ...
