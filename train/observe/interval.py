"""What observers of some steps have in common: they begin and end with these steps, and cost nothing in the others."""

from typing import Any

from train.observe.observers import ObservedStep, Observer


class IntervalObserver(Observer):
    """Measures every so many steps of a run.

    Args:
        every_steps: it measures the steps whose number is a multiple of this.
    """

    def __init__(self, every_steps: int) -> None:
        self._every_steps = every_steps
        self._is_due = False

    def begin(self, step: int) -> None:
        """See Observer."""
        self._is_due = step % self._every_steps == 0
        if self._is_due:
            self.start()

    def end(self, step: ObservedStep) -> dict[str, Any]:
        """See Observer."""
        return self.measured(step) if self._is_due else {}

    def start(self) -> None:
        """Prepare for a step that is measured."""

    def measured(self, step: ObservedStep) -> dict[str, Any]:
        """What was measured of it; every rank calls this."""
        raise NotImplementedError
