"""Importing libraries without the parts that this program does not use, which take longer than the rest.

Nothing else about a library changes: functions that it gives to `torch.compile` as they are defined are compiled when
they are first called, so that PyTorch's compiler is not imported before that; and wandb, which Megatron-core imports
where it is installed, is not found.
"""

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch

_ABSENT = ("wandb",)


@contextlib.contextmanager
def light_imports() -> Iterator[None]:
    """Import within it. What is imported before or after it is as usual, wandb included."""
    finder, compile_now = _Finder(), torch.compile
    sys.meta_path.insert(0, finder)
    torch.compile = functools.partial(_compile_when_called, compile_now)
    try:
        yield
    finally:
        torch.compile = compile_now
        sys.meta_path.remove(finder)


class _Finder(MetaPathFinder):
    """Finds nothing, and does not let others find what is to be absent."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See MetaPathFinder."""
        if fullname in _ABSENT:
            raise ModuleNotFoundError(f"{fullname} is not used by this library here", name=fullname)
        return None


def _compile_when_called(
    compile_now: Callable[..., Any], model: Callable[..., Any] | None = None, **options: Any
) -> Any:
    """`torch.compile` for a function, put off until the function is called."""
    if model is None:
        return functools.partial(_compile_when_called, compile_now, **options)
    if not inspect.isfunction(model):
        return compile_now(model, **options)
    function = model

    @functools.cache
    def compiled() -> Callable[..., Any]:
        return compile_now(function, **options)

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        return compiled()(*arguments, **named)

    return call
