"""Where a rank waits for others: all waits go through two classes of PyTorch, whatever library starts the transfer.

They are `Work.wait`, and on CUDA the operations of `ProcessGroup` too, since those that are not asynchronous run on the
stream of the computation. While somebody wants to know of them, both are replaced by functions that say when they begin
and end.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist

_OPERATIONS = (
    *("allreduce", "allreduce_coalesced", "broadcast", "reduce", "barrier", "send", "recv"),
    *("allgather", "_allgather_base", "allgather_into_tensor_coalesced"),
    *("reduce_scatter", "_reduce_scatter_base", "reduce_scatter_tensor_coalesced"),
)


@contextlib.contextmanager
def waits_noted(
    device: torch.device, begin: Callable[[], Any], end: Callable[[Any], None]
) -> Iterator[None]:
    """Call two functions around each wait of this rank.

    Args:
        device: of this rank.
        begin: called before a wait, but not within another one.
        end: called after it with what `begin` has returned.
    """
    points: list[tuple[Any, str]] = [(dist.Work, "wait")]
    if device.type == "cuda":
        points += [(dist.ProcessGroup, name) for name in _OPERATIONS]
    replaced = [(owner, name, getattr(owner, name)) for owner, name in points]
    is_waiting = False

    def noted(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal is_waiting
            if is_waiting:  # an operation that waits at its end
                return function(*arguments, **named)
            is_waiting = True
            begun = begin()
            try:
                return function(*arguments, **named)
            finally:
                end(begun)
                is_waiting = False

        return call

    for owner, name, function in replaced:
        setattr(owner, name, noted(function))
    try:
        yield
    finally:
        for owner, name, function in replaced:
            setattr(owner, name, function)
