"""Where a run reports to.

metrics.jsonl is train/metrics_file.py, details.jsonl and samples.jsonl train/details_file.py, the terminal with log.txt
train/terminal/, wandb train/tracker_wandb.py, TensorBoard train/tracker_tensorboard.py.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from train.metrics import Metrics


class Tracker:
    """Receives what a run reports; what a tracker does not care for, it leaves as it is here, where it does nothing."""

    def log_metrics(self, line: Metrics) -> None:
        """Take one step's metrics (train/metrics.py)."""

    def log_details(self, line: dict[str, Any]) -> None:
        """Take what is measured at intervals; after the metrics of the same step."""

    def log_samples(self, line: dict[str, Any]) -> None:
        """Take blanks of fixed held-out sentences, as the model fills them; after the metrics of the same step."""

    def log(self, text: str) -> None:
        """Take a sentence for people."""

    def alert(self, title: str, text: str) -> None:
        """Take what people should hear of while a run goes on.

        Args:
            title: a few words.
            text: sentences.
        """

    def log_checkpoint(self, folder: Path, samples_seen: int) -> None:
        """Take the news that a checkpoint was written."""

    def sync(self) -> None:
        """Write to disk what a checkpoint relies on, before it is committed; called by the thread that commits.

        Raises:
            OSError: the file cannot be written.
        """

    def close(self) -> None:
        """Flush and close."""


class Trackers(Tracker):
    """Several trackers as one; an empty list on the ranks that do not report."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = list(trackers)

    def log_metrics(self, line: Metrics) -> None:
        """See Tracker."""
        self._each(lambda tracker: tracker.log_metrics(line))

    def log_details(self, line: dict[str, Any]) -> None:
        """See Tracker."""
        self._each(lambda tracker: tracker.log_details(line))

    def log_samples(self, line: dict[str, Any]) -> None:
        """See Tracker."""
        self._each(lambda tracker: tracker.log_samples(line))

    def log(self, text: str) -> None:
        """See Tracker."""
        self._each(lambda tracker: tracker.log(text))

    def alert(self, title: str, text: str) -> None:
        """See Tracker."""
        self._each(lambda tracker: tracker.alert(title, text))

    def log_checkpoint(self, folder: Path, samples_seen: int) -> None:
        """See Tracker."""
        self._each(lambda tracker: tracker.log_checkpoint(folder, samples_seen))

    def sync(self) -> None:
        """See Tracker."""
        self._each(lambda tracker: tracker.sync())

    def close(self) -> None:
        """See Tracker. The first one is closed last: it takes what the others say at their end."""
        for tracker in reversed(self._trackers):
            tracker.close()

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for tracker in self._trackers:
            act(tracker)
