"""The loss, and its sums per objective.

    loss = sum over rows of (row weight * sum of the row's token losses)

The row weights decide whether rows (as in GLM-130B) or tokens count equally (train/batches.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glm.tensor_parallel import token_losses

# Targets and loss mask, (batch, seq) each; row weights, (batch,); numbers of objectives, (batch, seq).
Labels = tuple[Tensor, Tensor, Tensor, Tensor]


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

    def add(self, objective: int, loss: float, weight: float) -> None:
        """Add one row's losses of an objective."""
        self.losses[objective] += loss
        self.weights[objective] += weight

    def clear(self) -> None:
        """Start again at zero."""
        self.losses = [0.0] * len(self.losses)
        self.weights = [0.0] * len(self.weights)

    def copy(self) -> "ObjectiveSums":
        """An independent copy."""
        return ObjectiveSums(list(self.losses), list(self.weights))

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
    """Callable that DeepSpeed's last stage applies to (logits, labels).

    Args:
        sums: collects every row's loss, detached.
    """

    def __init__(self, sums: ObjectiveSums) -> None:
        self._sums = sums

    def __call__(self, logits: Tensor, labels: Labels) -> Tensor:
        """Scalar fp32 loss of a micro-batch.

        Args:
            logits: (targets, vocab_local) of the rows where loss_mask is set, in row order.
            labels: see Labels.
        """
        targets, loss_mask, row_weights, objectives = labels
        losses = token_losses(logits, targets[loss_mask])
        row_of = loss_mask.nonzero()[:, 0]
        row_sums = torch.zeros_like(row_weights).index_add(0, row_of, losses)
        self._record(losses.detach(), row_of, row_weights, objectives[loss_mask])
        return (row_sums * row_weights).sum()

    def _record(
        self, losses: Tensor, row_of: Tensor, row_weights: Tensor, objectives: Tensor
    ) -> None:
        """Add up each row's losses per objective, target by target."""
        num_rows, num_objectives = len(row_weights), len(self._sums.losses)
        group = row_of * num_objectives + objectives
        nothing = row_weights.new_zeros(num_rows * num_objectives)
        sums = nothing.index_add(0, group, losses)
        counts = nothing.index_add(0, group, torch.ones_like(losses))
        weights = row_weights.double().repeat_interleave(num_objectives)
        table = torch.stack([sums.double() * weights, counts.double() * weights], dim=1)
        for number, (loss, weight) in enumerate(table.tolist()):  # one read-back per micro-batch
            self._sums.add(number % num_objectives, loss, weight)
