"""What a team of the benchmarks works on in tests."""

import contextlib
from collections.abc import Callable, Iterator

from train.world import World


@contextlib.contextmanager
def numbers(world: World, offset: int) -> Iterator[Callable[[int], int]]:
    """Answers with a sum that differs on every rank."""
    yield lambda value: world.rank + offset + value
