"""Memory by what it is used for."""

from collections.abc import Callable
from typing import Any

from train.device import cached_memory_gib, peak_memory_gib
from train.engine import Engine, HeldBytes, PendingUpdate
from train.observe.interval import IntervalObserver
from train.observe.observers import ObservedStep
from train.session import Session


class MemoryObserver(IntervalObserver):
    """`memory/weights_gib`, `gradients_gib`, `optimizer_gib`, `activations_gib` and `rest_gib`: the largest of any rank, each.

    The first three are the tensors that a rank holds. On CUDA activations are what PyTorch's allocator has had beside
    them at its peak so far, temporary buffers included, and the rest is what it has reserved beyond that peak. On CPU
    nothing counts allocations: activations are null, and the rest is all else that the process has had in memory at its
    peak, libraries included.

    Args:
        every_steps: see IntervalObserver.
        engine: of this rank.
        session: the open process groups.
    """

    def __init__(self, every_steps: int, engine: Engine, session: Session) -> None:
        super().__init__(every_steps)
        self._engine = engine
        self._session = session
        self._held: HeldBytes | None = None
        self._remove_hook: Callable[[], None] = _do_nothing

    def start(self) -> None:
        """See IntervalObserver."""
        self._remove_hook = self._engine.add_hook(self._take)

    def measured(self, step: ObservedStep) -> dict[str, Any]:
        """See IntervalObserver."""
        self.close()
        assert self._held is not None, "every step has an update, or leaves it out after the hooks"
        held, device = self._held, self._session.device
        parts = [count / 2**30 for count in (held.weights, held.gradients, held.optimizer)]
        beside = peak_memory_gib(device) - sum(parts)
        cached = cached_memory_gib(device)
        own = [*parts, beside, cached or 0.0]
        weights, gradients, optimizer, beside, rest = self._session.max(own)
        activations: float | None = beside
        if cached is None:
            activations, rest = None, beside
        return {
            "memory/weights_gib": weights,
            "memory/gradients_gib": gradients,
            "memory/optimizer_gib": optimizer,
            "memory/activations_gib": activations,
            "memory/rest_gib": rest,
        }

    def close(self) -> None:
        """See Observer."""
        self._remove_hook()
        self._remove_hook = _do_nothing

    def _take(self, _: PendingUpdate) -> None:
        self._held = self._engine.held_bytes()


def _do_nothing() -> None:
    pass
