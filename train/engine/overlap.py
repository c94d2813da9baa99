"""Gradients reduced while the last backward passes run, and weights gathered while the next forward passes run.

For bf16 under ZeRO-1, where every replica holds the fp32 sums of all gradients in one flat buffer per parameter group and
owns one partition of it (`parallel.overlap`). DeepSpeed would sum the whole buffer on all replicas after the last pass;
here each bucket of it is reduced to the replicas that own it, half the bytes, as soon as its gradients are complete.
After the update each replica broadcasts its partition of the weights, in the order in which the next pass needs them.

All replicas of a stage start the same collectives in the same order, whatever their speed: buckets go from the end of
the buffer to its beginning, each after the one before it, and pieces of weights from the beginning to the end. What is
summed over other ranks first (tied weights, norms and biases under sequence parallelism) follows after the last pass.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from configs.computation import OVERLAP_BUCKET


@dataclass
class _Bucket:
    """A stretch of a flat buffer whose parameters are reduced together."""

    group: int
    start: int
    stop: int
    waits_for: dict[int, int] = field(default_factory=dict[int, int])
    """Gradients still to come, by the parameter's index in its group."""


class Overlap:
    """Reduction and gathering of one rank's gradients and weights.

    Args:
        optimizer: DeepSpeed's BF16_Optimizer.
        gradients_per_pass: how often a parameter's gradient is added to in each micro-batch.
        deferred: parameters that other ranks' sums must reach before the replicas'.
        bucket: elements of a bucket of gradients, and of a piece of weights, at least.
    """

    def __init__(
        self,
        optimizer: Any,
        gradients_per_pass: dict[nn.Parameter, int],
        deferred: set[nn.Parameter],
        bucket: int = OVERLAP_BUCKET,
    ) -> None:
        optimizer.overlap = self
        self._optimizer = optimizer
        self._uses = gradients_per_pass
        self._deferred = deferred
        self._size = bucket
        self._places = {
            parameter: (group, index)
            for group, parameters in enumerate(optimizer.bf16_groups)
            for index, parameter in enumerate(parameters)
        }
        self._buckets: list[_Bucket] = []
        self._bucket_of: dict[tuple[int, int], _Bucket] = {}
        self._next = 0
        self._reductions: list[Any] = []
        self._gathers: list[tuple[int, int, int, Any]] = []
        self._hooks: list[Any] = []

    def begin(self, num_micro_batches: int) -> None:
        """Start a step, in which each gradient is complete after this many micro-batches."""
        self._buckets = list(self._plan(num_micro_batches))
        self._bucket_of = {
            (bucket.group, index): bucket for bucket in self._buckets for index in bucket.waits_for
        }
        self._next = 0

    def add_ready(self, group: int, index: int) -> None:
        """Note that a gradient has been added to; starts to reduce the buckets that are complete."""
        bucket = self._bucket_of.get((group, index))
        if bucket is None:
            return
        bucket.waits_for[index] -= 1
        if bucket.waits_for[index] == 0:
            del bucket.waits_for[index]
        while self._next < len(self._buckets) and not self._buckets[self._next].waits_for:
            self._start(self._buckets[self._next])
            self._next += 1

    def finish(self) -> None:
        """Reduce what is left, and wait. Each replica then holds the mean of its own partition, and nothing else."""
        for bucket in self._buckets[self._next :]:
            self._start(bucket)
        for group, parameter_stretches in enumerate(self._left_out()):
            for start, stop in parameter_stretches:
                self._start(_Bucket(group, start, stop))
        self._next = len(self._buckets)
        for work in self._reductions:
            work.wait()
        self._reductions.clear()
        for group, own in enumerate(self._optimizer.fp32_groups_gradient_flat_partition):
            own.mul_(1.0 / dist.get_world_size(self._replicas(group)))

    def own_part(self, parameter: nn.Parameter) -> Tensor | None:
        """The part of a parameter's gradient that this replica owns, flat; None: nothing of it."""
        mapping: Any = vars(parameter)["_hp_mapping"]
        if mapping is None:
            return None
        address = mapping.hp_fragment_address
        own = self._optimizer.fp32_groups_gradient_flat_partition[mapping.param_group_index]
        return own.narrow(0, address.start, address.numel)

    def gather(self) -> None:
        """Round the masters to the weights of this replica's partition, and start to exchange all partitions."""
        optimizer = self._optimizer
        for group in range(len(optimizer.bf16_groups_flat)):
            replicas = self._replicas(group)
            own = optimizer.bf16_partitioned_groups[group][dist.get_rank(replicas)]
            own.data.copy_(optimizer.fp32_groups_flat_partition[group].data)
        for group, flat in enumerate(optimizer.bf16_groups_flat):
            for start in range(0, flat.numel(), self._size):
                stop = min(start + self._size, flat.numel())
                for owner, first, last in self._owners(group, start, stop):
                    work = dist.broadcast(
                        flat.data[first:last],
                        src=dist.get_global_rank(self._replicas(group), owner),
                        group=self._replicas(group),
                        async_op=True,
                    )
                    self._gathers.append((group, first, last, work))

    def wait_before(self, module: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
        """Make every forward pass of a module wait for these weights."""
        stretches = [self._stretch(*self._places[parameter]) for parameter in parameters]
        groups = [self._places[parameter][0] for parameter in parameters]

        def wait(*_: object) -> None:
            for group, (start, stop) in zip(groups, stretches, strict=True):
                self._wait(group, start, stop)

        self._hooks.append(module.register_forward_pre_hook(wait))

    def settle(self) -> None:
        """Wait for all weights."""
        for _, _, _, work in self._gathers:
            work.wait()
        self._gathers.clear()

    def close(self) -> None:
        """Wait for what is under way, and remove the hooks."""
        self.settle()
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _wait(self, group: int, start: int, stop: int) -> None:
        if not self._gathers:
            return
        left = []
        for gather in self._gathers:
            of, first, last, work = gather
            if of == group and first < stop and start < last:
                work.wait()
            else:
                left.append(gather)
        self._gathers = left

    def _plan(self, num_micro_batches: int) -> Iterator[_Bucket]:
        """Buckets of all parameters but the deferred ones, from the end of each flat buffer to its beginning.

        The vectors' group comes last: it is so small that one bucket holds those of all layers, and is complete with the
        last gradient of the step. What comes after it in the order would wait for that.
        """
        for group, parameters in enumerate(self._optimizer.bf16_groups):
            bucket = None
            for index, parameter in reversed(list(enumerate(parameters))):
                if parameter in self._deferred:
                    if bucket is not None:
                        yield bucket
                    bucket = None
                    continue
                start, stop = self._stretch(group, index)
                bucket = bucket or _Bucket(group, start, stop)
                bucket.start = start
                bucket.waits_for[index] = num_micro_batches * self._uses.get(parameter, 1)
                if bucket.stop - bucket.start >= self._size:
                    yield bucket
                    bucket = None
            if bucket is not None:
                yield bucket

    def _left_out(self) -> list[list[tuple[int, int]]]:
        """Of each group the stretches of deferred parameters, neighbours together."""
        found: list[list[tuple[int, int]]] = []
        for group, parameters in enumerate(self._optimizer.bf16_groups):
            stretches: list[tuple[int, int]] = []
            for index, parameter in enumerate(parameters):
                if parameter not in self._deferred:
                    continue
                start, stop = self._stretch(group, index)
                if stretches and stretches[-1][1] == start:
                    start = stretches.pop()[0]
                stretches.append((start, stop))
            found.append(stretches)
        return found

    def _start(self, bucket: _Bucket) -> None:
        flat = self._optimizer.fp32_groups_gradients_flat[bucket.group]
        replicas = self._replicas(bucket.group)
        for owner, first, last in self._owners(bucket.group, bucket.start, bucket.stop):
            target = dist.get_global_rank(replicas, owner)
            self._reductions.append(
                dist.reduce(flat[first:last], dst=target, group=replicas, async_op=True)
            )

    def _owners(self, group: int, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """(replica, first, last) for the parts of a stretch."""
        size = self._optimizer.bf16_partitioned_groups[group][0].numel()
        for owner in range(start // size, (stop - 1) // size + 1):
            yield owner, max(start, owner * size), min(stop, (owner + 1) * size)

    def _stretch(self, group: int, index: int) -> tuple[int, int]:
        gradient = self._optimizer.fp32_groups_gradients[group][index]
        flat = self._optimizer.fp32_groups_gradients_flat[group]
        start = gradient.storage_offset() - flat.storage_offset()
        return start, start + gradient.numel()

    def _replicas(self, group: int) -> Any:
        return self._optimizer.real_dp_process_group[group]


def overlap_of(optimizer: Any) -> Overlap | None:
    """What reduces an optimizer's gradients to the replicas that own them; None: every replica has them all."""
    return vars(optimizer).get("overlap")
