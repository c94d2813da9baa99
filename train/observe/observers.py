"""Those who measure something of the steps, as the training loop sees them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from glm.loss import ObjectiveSums
from train.batches import StepBatches
from train.plan import StepPlan
from train.progress import Progress
from train.step_metrics import Agreed
from train.trackers import Tracker


@dataclass(frozen=True)
class ObservedStep:
    """A step that is over, and its evaluation."""

    plan: StepPlan
    progress: Progress
    """Position after it."""
    agreed: Agreed
    """What all ranks know about it."""
    valid: ObjectiveSums | None
    """Held-out losses after it; None: they were not computed."""


class Observer:
    """Measures something of the steps. Every rank has the same observers and calls them alike, so they may communicate."""

    def begin(self, step: int) -> None:
        """Take that a step begins: its data is not drawn yet.

        Args:
            step: its number, from 1.
        """

    def drawn(self, batches: StepBatches) -> None:
        """Take the batches of the step, before it trains; empty on ranks that read no data."""

    def end(self, step: ObservedStep) -> dict[str, Any]:
        """Take that a step is over: its metrics are logged, and no checkpoint of it is written yet.

        Returns:
            What goes into its line of details.jsonl, by name; rank 0's counts. Empty: nothing.
        """
        return {}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, by a name of its own: plain values. Between steps; rank 0's counts."""
        return {}

    def finish(self) -> None:
        """Wait for what is still being written, once the end of the run is recorded; not after an error."""

    def close(self) -> None:
        """Release what it holds, after an error as well: no other rank is asked, and nothing is waited for."""


class Observers:
    """Several observers, whose details of a step become one line.

    Args:
        observers: in the order of their keys in the line.
        trackers: get the line, if there is anything in it.
    """

    def __init__(self, observers: Sequence[Observer], trackers: Tracker) -> None:
        self._observers = list(observers)
        self._trackers = trackers

    @property
    def is_empty(self) -> bool:
        """True if nothing is measured."""
        return not self._observers

    def begin(self, step: int) -> None:
        """See Observer."""
        for observer in self._observers:
            observer.begin(step)

    def drawn(self, batches: StepBatches) -> None:
        """See Observer."""
        for observer in self._observers:
            observer.drawn(batches)

    def end(self, step: ObservedStep) -> None:
        """See Observer."""
        details: dict[str, Any] = {}
        for observer in self._observers:
            details.update(observer.end(step))
        if details:
            position = {"step": step.progress.step, "samples_seen": step.progress.samples_seen}
            self._trackers.log_details({**position, **details})

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of all of them."""
        return {
            key: value for observer in self._observers for key, value in observer.state().items()
        }

    def finish(self) -> None:
        """See Observer."""
        for observer in self._observers:
            observer.finish()

    def close(self) -> None:
        """See Observer."""
        for observer in self._observers:
            observer.close()
