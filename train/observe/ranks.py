"""What each rank takes for a step."""

from typing import Any

from train.observe.interval import IntervalObserver
from train.observe.observers import ObservedStep


class RankObserver(IntervalObserver):
    """`ranks/seconds`: how long the step took on each rank, in the order of the ranks."""

    def measured(self, step: ObservedStep) -> dict[str, Any]:
        """See IntervalObserver."""
        return {"ranks/seconds": list(step.agreed.rank_seconds)}
