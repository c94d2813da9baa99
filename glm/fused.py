"""Functions that run as one kernel each: compiled on CUDA, the same code eagerly on CPU.

A fused function is plain tensor operations. On CUDA torch.compile makes one kernel of it, which reads each input once
and writes each output once: this is the function's *declared* traffic. That holds because a function reduces over one
axis at most; the compiler does not fuse reductions over two. What a function keeps for its backward pass is among its
inputs or outputs, so its signature declares those bytes too. No CPU run ever calls a compiler.

A new shape has a compiled function compiled once more, for any shape, and what runs from then on for the shapes of training
is PyTorch's choice. So what must not touch training runs `eagerly`.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor


class Fused:
    """A function of tensors that is one kernel on CUDA.

    Args:
        function: without side effects; reduces over one axis at most.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.name = function.__name__

    def __call__(self, *arguments: Any) -> Any:
        """Run the function."""
        if _observer is not None:
            return _observer(self, arguments)
        if not _is_eager and any(isinstance(each, Tensor) and each.is_cuda for each in arguments):
            return self._compiled(*arguments)
        return self.function(*arguments)

    @cached_property
    def _compiled(self) -> Callable[..., Any]:
        return torch.compile(self.function, fullgraph=True)


FUSED: dict[str, Fused] = {}
"""All fused functions, by name."""


def fused(function: Callable[..., Any]) -> Fused:
    """Register a function of tensors as one kernel."""
    made = Fused(function)
    assert made.name not in FUSED, made.name
    FUSED[made.name] = made
    return made


def is_observed() -> bool:
    """True where an observer is to see the calls of a GPU, on whatever device the tensors are."""
    return _observer is not None


@contextlib.contextmanager
def eagerly() -> Iterator[None]:
    """Run what is compiled on CUDA as it is written, whatever its shapes; what is compiled stays as it is."""
    global _is_eager
    before, _is_eager = _is_eager, True
    try:
        yield
    finally:
        _is_eager = before


def is_eager() -> bool:
    """True where nothing may be compiled or run compiled."""
    return _is_eager


_is_eager = False
Observer = Callable[[Fused, tuple[Any, ...]], Any]
_observer: Observer | None = None


@contextlib.contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Have `observer(function, arguments)` called in place of each fused function; it returns the results."""
    global _observer
    before, _observer = _observer, observer
    try:
        yield
    finally:
        _observer = before


def traffic(values: Any) -> int:
    """Bytes that must be read or written for tensors once each; an axis that is expanded counts once.

    Args:
        values: a tensor, or lists, tuples and dictionaries of tensors and others.
    """
    tensors = {id(tensor): tensor for tensor in _tensors(values)}
    return sum(_stored(tensor) * tensor.element_size() for tensor in tensors.values())


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        yield from _tensors(list(cast(dict[Any, Any], values).values()))
    elif isinstance(values, (list, tuple)):
        for value in cast(list[Any], values):
            yield from _tensors(value)


def _stored(tensor: Tensor) -> int:
    """Elements in memory."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return torch.Size(1 if stride == 0 else size for size, stride in sizes).numel()
