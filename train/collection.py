"""Python's collection of garbage in cycles, between steps and at the same steps on all ranks.

Left alone it runs whenever enough objects were made, in the middle of a step, and looks through every object of the
libraries: one rank after the other would hold up all of them. What exists when training begins stays, so it is left out.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator

_STEPS_BETWEEN_WHOLE_COLLECTIONS = 100
_YOUNG = 1


@contextlib.contextmanager
def collecting_between_steps() -> Iterator[Callable[[int], None]]:
    """Collect when told, and leave Python as it was at the end.

    Yields:
        To be called after every step, with its number: collects what is young, and everything at fixed intervals.
    """
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield _collect
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def _collect(step: int) -> None:
    if step % _STEPS_BETWEEN_WHOLE_COLLECTIONS == 0:
        gc.collect()
    else:
        gc.collect(_YOUNG)
