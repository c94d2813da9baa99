"""Counts while code runs: every operator below autograd, fused functions by their declaration, collectives, syncs."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.fx.experimental import _config as meta_config
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.counting.operators import bytes_of, kind_of, sync_of, work_of
from benchmarks.counting.tally import Tally, Work
from glm.fused import Fused, observing


class OperatorCounter(TorchDispatchMode):
    """Counts what passes through PyTorch's dispatcher while it is active, into `tally`."""

    def __init__(self) -> None:
        super().__init__()
        self.tally = Tally()
        self._is_inside = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and count it."""
        kwargs = kwargs or {}
        namespace = func.namespace
        reason = sync_of(func, args, kwargs)
        if reason is not None and not self._is_inside:
            self.tally.syncs[reason] += 1
        result = _on_the_host(func, args, kwargs) if reason is not None else NotImplemented
        if result is NotImplemented:
            result = func(*args, **kwargs)
        if self._is_inside:
            return result
        if namespace in ("c10d", "_c10d_functional"):
            self._count_collective(func, args)
        else:
            self.add(
                kind_of(func.name().partition(".")[0]),
                str(func),
                work_of(func, args, kwargs, result),
            )
        return result

    def take(self) -> Tally:
        """What was counted so far; the count starts anew."""
        taken, self.tally = self.tally, Tally()
        return taken

    def add(self, kind: str, name: str, work: Work) -> None:
        """Count work of a kind ("products", "attention" or "other") under an operator's name."""
        setattr(self.tally, kind, getattr(self.tally, kind) + work)
        if kind == "other" and work.kernels:
            self.tally.by_operator[name] = self.tally.by_operator.get(name, Work()) + work

    def fused(self, function: Fused, arguments: tuple[Any, ...]) -> Any:
        """Run a fused function, and count one kernel with the traffic that its signature declares."""
        with self.inside():
            results = function.function(*arguments)
        work = Work(1, bytes_of(arguments), bytes_of(results))
        self.add("other", f"fused {function.name}", work)
        return results

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Leave out what runs meanwhile: the inner operators of one kernel."""
        before, self._is_inside = self._is_inside, True
        try:
            yield
        finally:
            self._is_inside = before

    def _count_collective(self, func: Any, args: Any) -> None:
        kind = _KINDS.get(func.name().partition(".")[0].partition("::")[2])
        if kind is None or _is_alone(args):
            return
        self.tally.collectives[kind] += 1
        # The larger of input and output is the whole tensor.
        sizes = [bytes_of(argument) for argument in args if _holds_tensors(argument)]
        self.tally.collective_bytes[kind] += max(sizes, default=0)


_KINDS = {
    "allreduce_": "all-reduce",
    "all_reduce": "all-reduce",
    "_allgather_base_": "all-gather",
    "allgather_": "all-gather",
    "all_gather_into_tensor": "all-gather",
    "_reduce_scatter_base_": "reduce-scatter",
    "reduce_scatter_": "reduce-scatter",
    "reduce_scatter_tensor": "reduce-scatter",
    "broadcast_": "broadcast",
    "send": "send",
    "recv_": "receive",
}


@contextlib.contextmanager
def counting() -> Iterator[OperatorCounter]:
    """Count everything that runs meanwhile, forward or backward, on meta or real tensors."""
    counter = OperatorCounter()
    before = meta_config.meta_nonzero_assume_all_nonzero
    meta_config.meta_nonzero_assume_all_nonzero = True
    try:
        with observing(counter.fused), _HostReads(counter), counter:
            yield counter
    finally:
        meta_config.meta_nonzero_assume_all_nonzero = before


class _HostReads(TorchFunctionMode):
    """Lets code read meta tensors on the host, as zeros: `tolist` does not reach the dispatcher."""

    def __init__(self, counter: OperatorCounter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.tolist and args[0].is_meta:
            self._counter.tally.syncs["a value is read"] += 1
            with self._counter.inside():
                return torch.zeros(args[0].shape, dtype=args[0].dtype, device="cpu").tolist()
        return func(*args, **(kwargs or {}))


def _on_the_host(func: Any, args: Any, kwargs: Any) -> Any:
    """What a meta tensor is read as: zero, for it has no values; NotImplemented where nothing is read."""
    name = func.name().partition(".")[0]
    if name == "aten::_local_scalar_dense" and args[0].is_meta:
        return torch.zeros((), dtype=args[0].dtype, device="cpu").item()
    device = kwargs.get("device")
    if name == "aten::_to_copy" and args[0].is_meta and torch.device(device).type == "cpu":
        dtype = kwargs.get("dtype") or args[0].dtype
        return torch.zeros(args[0].shape, dtype=dtype, device="cpu")
    return NotImplemented


def _is_alone(args: Any) -> bool:
    """True if the group of a collective is one rank: it sends nothing."""
    groups = [each for each in args if isinstance(each, torch.ScriptObject)]
    return any("ProcessGroup" in str(each._type()) and _size(each) == 1 for each in groups)


def _size(group: torch.ScriptObject) -> int:
    return dist.ProcessGroup.unbox(group).size()


def _holds_tensors(value: Any) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in tree_leaves(value))
