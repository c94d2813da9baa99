"""Where a run reports to, behind one protocol.

metrics.jsonl is train/metrics_file.py, the console with log.txt train/console.py, wandb train/tracker_wandb.py.
"""

from typing import Protocol

from train.metrics import Metrics


class Tracker(Protocol):
    """Receives every step's metrics line."""

    def log_metrics(self, line: Metrics) -> None:
        """Take one step's metrics (train/metrics.py)."""
        ...

    def log(self, text: str) -> None:
        """Take a sentence for people."""
        ...

    def alert(self, title: str, text: str) -> None:
        """Take what people should hear of while a run goes on."""
        ...

    def sync(self) -> None:
        """Write to disk what a checkpoint relies on, before it is committed; called by the thread that commits.

        Raises:
            OSError: the file cannot be written.
        """
        ...

    def close(self) -> None:
        """Flush and close."""
        ...


class Trackers:
    """Several trackers as one; an empty list on the ranks that do not report."""

    def __init__(self, trackers: list[Tracker]) -> None:
        self._trackers = trackers

    def log_metrics(self, line: Metrics) -> None:
        """Report one step."""
        for tracker in self._trackers:
            tracker.log_metrics(line)

    def log(self, text: str) -> None:
        """Report a sentence."""
        for tracker in self._trackers:
            tracker.log(text)

    def alert(self, title: str, text: str) -> None:
        """Report what people should hear of while a run goes on.

        Args:
            title: a few words.
            text: sentences.
        """
        for tracker in self._trackers:
            tracker.alert(title, text)

    def sync(self) -> None:
        """Write to disk what a checkpoint relies on.

        Raises:
            OSError: the file cannot be written.
        """
        for tracker in self._trackers:
            tracker.sync()

    def close(self) -> None:
        """Close all."""
        for tracker in self._trackers:
            tracker.close()
