"""Which of PyTorch's operators a piece of code calls."""

import contextlib
from collections.abc import Iterator
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


@contextlib.contextmanager
def called_operators() -> Iterator[list[str]]:
    """Names of the operators that are called, in order, such as "aten::add_"; those of backward passes too."""
    names: list[str] = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            names.append(func.name().partition(".")[0])
            return func(*args, **(kwargs or {}))

    with Recorder():
        yield names
