"""The loss, and what it reports per objective.

    loss = sum over rows of (row weight * sum of the row's token losses)

The row weights decide what counts the same (train/batches.py): rows, as GLM-130B, or tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from glm.tensor_parallel import token_losses

# Targets and loss mask, (batch, seq) each; row weights and objectives, (batch,) each.
Labels = tuple[Tensor, Tensor, Tensor, Tensor]

NUM_OBJECTIVES = 3
"""[MASK], [gMASK], MIP, in the order of data_pipeline.objective.Objective."""


@dataclass
class ObjectiveSums:
    """Weighted losses and their weights, per objective; a mean is one divided by the other.

    With row weights of 1 / targets the mean is over rows, with constant ones over tokens.
    """

    losses: list[float] = field(default_factory=lambda: [0.0] * NUM_OBJECTIVES)
    weights: list[float] = field(default_factory=lambda: [0.0] * NUM_OBJECTIVES)

    def add(self, objective: int, loss: float, weight: float) -> None:
        """Add one row."""
        self.losses[objective] += loss
        self.weights[objective] += weight

    def clear(self) -> None:
        """Start again at zero."""
        self.losses = [0.0] * NUM_OBJECTIVES
        self.weights = [0.0] * NUM_OBJECTIVES

    def copy(self) -> "ObjectiveSums":
        """An independent copy."""
        return ObjectiveSums(list(self.losses), list(self.weights))

    def to_list(self) -> list[float]:
        """Flat values, to be added up over ranks."""
        return [*self.losses, *self.weights]

    @classmethod
    def from_list(cls, values: Sequence[float]) -> "ObjectiveSums":
        """Undo `to_list`."""
        return cls(list(values[:NUM_OBJECTIVES]), list(values[NUM_OBJECTIVES:]))

    @property
    def mean(self) -> float | None:
        """Mean loss over all objectives; None if there was no row."""
        weight = sum(self.weights)
        return sum(self.losses) / weight if weight else None

    def mean_of(self, objective: int) -> float | None:
        """Mean loss of one objective; None if it had no row."""
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
        self._record(row_sums.detach(), loss_mask, row_weights, objectives)
        return (row_sums * row_weights).sum()

    def _record(
        self, row_sums: Tensor, loss_mask: Tensor, row_weights: Tensor, objectives: Tensor
    ) -> None:
        weights = row_weights.double()
        table = torch.stack(
            [objectives.double(), row_sums.double() * weights, loss_mask.sum(1) * weights], dim=1
        )
        for objective, loss, weight in table.tolist():  # one read-back per micro-batch
            self._sums.add(int(objective), loss, weight)
