"""Where a rank waits for others: all waits go through two classes of PyTorch, whatever library starts the transfer.

They are `Work.wait`, and on CUDA the operations of `ProcessGroup` too, since those that are not asynchronous run on the
stream of the computation. While anybody wants to know of them, both are replaced by functions that say when they begin
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

_Told = tuple[Callable[[], Any], Callable[[Any], None]]


class _Waits:
    """Who is told, and what is replaced for as long as anybody is."""

    def __init__(self) -> None:
        self.told: list[_Told] = []
        self._is_waiting = False
        self._replaced: list[tuple[Any, str, Callable[..., Any]]] = []

    def replace(self, device: torch.device) -> None:
        points: list[tuple[Any, str]] = [(dist.Work, "wait")]
        if device.type == "cuda":
            points += [(dist.ProcessGroup, name) for name in _OPERATIONS]
        self._replaced = [(owner, name, getattr(owner, name)) for owner, name in points]
        for owner, name, function in self._replaced:
            setattr(owner, name, self._noted(function))

    def put_back(self) -> None:
        for owner, name, function in self._replaced:
            setattr(owner, name, function)
        self._replaced = []

    def _noted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            if self._is_waiting:  # an operation that waits at its end
                return function(*arguments, **named)
            self._is_waiting = True
            begun = [(end, begin()) for begin, end in self.told]
            try:
                return function(*arguments, **named)
            finally:
                for end, value in reversed(begun):
                    end(value)
                self._is_waiting = False

        return call


_waits = _Waits()


@contextlib.contextmanager
def waits_noted(
    device: torch.device, begin: Callable[[], Any], end: Callable[[Any], None]
) -> Iterator[None]:
    """Call two functions around each wait of this rank; several may be told at once, and stop in any order.

    Args:
        device: of this rank.
        begin: called before a wait, but not within another one.
        end: called after it with what `begin` has returned.
    """
    told = (begin, end)
    if not _waits.told:
        _waits.replace(device)
    _waits.told.append(told)
    try:
        yield
    finally:
        _waits.told.remove(told)
        if not _waits.told:
            _waits.put_back()
