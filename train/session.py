"""The process groups of a running session, and the few collectives that the trainer itself needs."""

from dataclasses import dataclass

import torch
import torch.distributed as dist

from train.topology import Topology


@dataclass(frozen=True)
class Session:
    """Opened and closed by train/distributed.py."""

    topology: Topology
    device: torch.device
    control_group: dist.ProcessGroup
    """gloo over all ranks: carries the trainer's own numbers beside the engine's traffic."""
    dp_group: dist.ProcessGroup
    """gloo over the replicas of this rank's part of the model."""

    def sum(self, values: list[float]) -> list[float]:
        """Add up `values` element by element over all ranks, in float64."""
        return self._reduce(values, dist.ReduceOp.SUM, self.control_group)

    def max(self, values: list[float]) -> list[float]:
        """Largest of `values`, element by element, over all ranks."""
        return self._reduce(values, dist.ReduceOp.MAX, self.control_group)

    def sum_over_replicas(self, values: list[float]) -> list[float]:
        """Add up `values` over the data-parallel ranks of this part of the model."""
        return self._reduce(values, dist.ReduceOp.SUM, self.dp_group)

    def barrier(self) -> None:
        """Wait for every rank."""
        dist.barrier(group=self.control_group)

    @staticmethod
    def _reduce(
        values: list[float], operation: dist.ReduceOp.RedOpType, group: dist.ProcessGroup
    ) -> list[float]:
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, op=operation, group=group)
        return tensor.tolist()
