"""The parts of a step, marked where they happen: drawing data, forward and backward passes, the update, saving, ...

    with part("forward"): ...

Nobody listens as a rule, and then marking costs a call. The split of a step's time (train/observe/step_clock.py) and the
profiler (train/observe/profiler.py) listen in the steps that they measure. Only what works on behalf of the training loop
is marked: its own thread, and autograd's while it waits for them.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

DATA, FORWARD, BACKWARD, OPTIMIZER = "data", "forward", "backward", "optimizer"
BUBBLE, COMMUNICATION = "bubble", "communication"
CHECKPOINT, EVALUATION, LOGGING = "checkpoint", "evaluation", "logging"

PARTS = (
    *(DATA, FORWARD, BACKWARD, BUBBLE, COMMUNICATION, OPTIMIZER),
    *(CHECKPOINT, EVALUATION, LOGGING),
)
"""All parts. `bubble` is what a stage waits for its neighbours in the pipeline, `communication` for all others."""

WHOLE = frozenset({DATA, BUBBLE, COMMUNICATION, CHECKPOINT, EVALUATION, LOGGING})
"""What happens within these belongs to them: the forward passes of an evaluation, the waiting for a neighbour's output."""

T = TypeVar("T")


class Listener(Protocol):
    """Is told of the parts."""

    def enter(self, name: str) -> None:
        """Take that a part begins, within the one that began last."""
        ...

    def leave(self) -> None:
        """Take that the part which began last is over."""
        ...


_listeners: tuple[Listener, ...] = ()
_NOTHING = contextlib.nullcontext()


def belongs_to(within: str, name: str) -> bool:
    """True if a part counts as the one that it happens within.

    Args:
        within: the part around it; "" for none.
        name: of the part.
    """
    # Blanks of held-out text are filled for the log (train/observe/filled_blanks.py).
    return within in WHOLE and not (within == LOGGING and name == EVALUATION)


def part(name: str) -> contextlib.AbstractContextManager[None]:
    """Mark a part.

    Args:
        name: one of PARTS.
    """
    return _told(name, _listeners) if _listeners else _NOTHING


@contextlib.contextmanager
def _told(name: str, listeners: tuple[Listener, ...]) -> Iterator[None]:
    # Those who begin to listen in the meantime have not heard of its beginning.
    for listener in listeners:
        listener.enter(name)
    try:
        yield
    finally:
        for listener in reversed(listeners):
            listener.leave()


def listen(listener: Listener) -> Callable[[], None]:
    """Tell a listener of all parts that begin from now on; returns a function that ends it."""
    global _listeners
    _listeners = (*_listeners, listener)

    def end() -> None:
        global _listeners
        _listeners = tuple(each for each in _listeners if each is not listener)

    return end


def marked(name: str, function: Callable[..., T]) -> Callable[..., T]:
    """The function, each of whose calls is a part."""

    def call(*arguments: object, **named: object) -> T:
        with part(name):
            return function(*arguments, **named)

    return call


def drawn(values: Iterable[T]) -> Iterator[T]:
    """The values; making each of them counts as data."""
    iterator = iter(values)
    end = object()
    while True:
        with part(DATA):
            value = next(iterator, end)
        if value is end:
            return
        yield value  # pyright: ignore[reportReturnType]
