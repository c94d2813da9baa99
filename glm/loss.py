"""The loss, and its sums per objective.

    loss = sum over rows of (row weight * sum of the row's token losses)

The row weights decide whether rows (as in GLM-130B) or tokens count equally (train/batches.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glm.embedding import WordEmbedding
from glm.head import target_losses
from glm.tensor_parallel import token_losses

# Of each target, in row order: its place in the flattened micro-batch, its id, its row and its objective's number, (targets,)
# int64 each; and the weights of the rows, (batch,) fp32. All are made on the host, so that no device is asked for a count.
Labels = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


@dataclass
class ObjectiveSums:
    """Sums of weighted losses and of weights, per objective; a mean loss is one divided by the other.

    With row weights of 1 / targets it is the mean over rows, with constant weights that over tokens. Objectives are
    numbered as in `configs.objectives.objectives_of`.
    """

    losses: list[float]
    weights: list[float]

    @classmethod
    def zeros(cls, num_objectives: int) -> "ObjectiveSums":
        """Sums of zero."""
        return cls([0.0] * num_objectives, [0.0] * num_objectives)

    def to_list(self) -> list[float]:
        """Flat values, to be added up over ranks."""
        return [*self.losses, *self.weights]

    @classmethod
    def from_list(cls, values: Sequence[float]) -> "ObjectiveSums":
        """Set the sums from the values that `to_list` returns."""
        num_objectives = len(values) // 2
        return cls(list(values[:num_objectives]), list(values[num_objectives:]))

    @property
    def mean(self) -> float | None:
        """Mean loss over all objectives; None if there was no row."""
        weight = sum(self.weights)
        return sum(self.losses) / weight if weight else None

    def mean_of(self, objective: int) -> float | None:
        """Mean loss of one objective; None if it had no target."""
        weight = self.weights[objective]
        return self.losses[objective] / weight if weight else None


class GLMLoss:
    """Callable that DeepSpeed's last stage applies to (hidden states, labels).

    It adds the losses up by objective, on the device; `take` reads them, once a step.

    Args:
        num_objectives: of the run.
    """

    def __init__(self, num_objectives: int) -> None:
        self.embedding: WordEmbedding | None = None
        """The tied module, on the stage that has it."""
        self.scale = 1.0
        """Factor that the backward pass is expected to bring: fp16's loss scale."""
        self.on_rows: Callable[[Tensor], None] | None = None
        """Called in every forward pass with the sums of weighted losses and of weights of each row, (2, batch) fp64 on the
        device; None: they are not computed."""
        self._num_objectives = num_objectives
        self._sums: Tensor | None = None

    def __call__(self, hidden: Tensor, labels: Labels) -> Tensor:
        """Scalar fp32 loss of a micro-batch.

        Args:
            hidden: (tokens, hidden), after the final norm.
            labels: see Labels.
        """
        places, targets, rows, _, row_weights = labels
        assert self.embedding is not None, "the last stage has the head"
        chosen = hidden.index_select(0, places)
        factors = row_weights.index_select(0, rows)
        loss, losses = target_losses(self.embedding, chosen, targets, factors, self.scale)
        self._record(losses, labels, factors)
        return loss

    def add_logits(self, logits: Tensor, labels: Labels) -> None:
        """Add up the losses of logits that were computed already: (targets, vocab), in the order of the labels."""
        _, targets, rows, _, row_weights = labels
        losses = token_losses(logits, targets)
        self._record(losses, labels, row_weights.index_select(0, rows))

    @property
    def recorded(self) -> Tensor | None:
        """The sums since `take` was last called, (2, objectives) on the device; None: no loss was computed."""
        return self._sums

    def take(self) -> ObjectiveSums:
        """The sums since the last call; reads them back from the device."""
        sums, self._sums = self._sums, None
        if sums is None:
            return ObjectiveSums.zeros(self._num_objectives)
        losses, weights = sums.tolist()
        return ObjectiveSums(losses, weights)

    def _record(self, losses: Tensor, labels: Labels, factors: Tensor) -> None:
        _, _, rows, objectives, row_weights = labels
        wide = factors.double()
        table = torch.stack([losses.detach().double() * wide, wide])
        if self._sums is None:
            self._sums = table.new_zeros(2, self._num_objectives)
        self._sums.index_add_(1, objectives, table)
        if self.on_rows is not None:
            self.on_rows(table.new_zeros(2, len(row_weights)).index_add_(1, rows, table))
