"""TensorBoard: event files in the run folder, one for each attempt; the one file that imports tensorboardX.

The x-axis is samples_seen. TensorBoard puts all files of the folder together; where an attempt, or a rollback within one,
goes back, a mark tells it to forget what was logged from there on, so that it shows the final history.
"""

import time
from pathlib import Path
from typing import Any

from train.detail_values import scalars
from train.metrics import Metrics
from train.trackers import Tracker

_FLUSH_SECONDS = 5.0


class TensorBoardTracker(Tracker):
    """Writes an event file.

    Args:
        folder: that gets it; need not exist.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2
        from tensorboardX.summary import text

        # Generated from a schema: their fields are known when they are imported.
        self._messages: Any = event_pb2
        self._text: Any = text
        folder.mkdir(parents=True, exist_ok=True)
        # The library's writer of files by itself, without its queue and thread: errors arrive here.
        self._file = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        self._flushed = time.monotonic()
        self._step = -1
        self._samples_seen = 0

    def log_metrics(self, line: Metrics) -> None:
        """See Tracker."""
        samples_seen = line["samples_seen"]
        if line["step"] != self._step + 1:
            self._forget_from(samples_seen)
        self._step, self._samples_seen = line["step"], samples_seen
        self._write(line)

    def log_details(self, line: dict[str, Any]) -> None:
        """See Tracker; those of each layer get curves of their own."""
        self._write(scalars(line))

    def log_samples(self, line: dict[str, Any]) -> None:
        """See Tracker."""
        blanks = [
            f"{blank.get('text')}\n-> {blank.get('filled')}  (truth: {blank.get('truth')})"
            for blank in line["blanks"]
        ]
        self._write_text("samples/blanks", "\n\n".join(blanks), line["samples_seen"])

    def alert(self, title: str, text: str) -> None:
        """See Tracker."""
        self._write_text(f"alerts/{title}", text, self._samples_seen)

    def sync(self) -> None:
        """See Tracker."""
        self._file.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """See Tracker."""
        self._file.close()

    def _forget_from(self, samples_seen: int) -> None:
        """Make TensorBoard forget what earlier attempts, or this one, have logged at and after a position."""
        session = self._messages.SessionLog(status=self._messages.SessionLog.START)
        self._event(samples_seen, session_log=session)

    def _write(self, values: Metrics) -> None:
        summary = self._messages.Event().summary
        for tag, value in values.items():
            if value is not None and tag != "samples_seen":
                summary.value.add(tag=tag, simple_value=value)
        self._event(values["samples_seen"], summary=summary)

    def _write_text(self, tag: str, text: str, samples_seen: int) -> None:
        """As Markdown that shows every character: lines of code."""
        code = "\n".join(f"    {line}" for line in text.splitlines())
        self._event(samples_seen, summary=self._text(tag, code))

    def _event(self, samples_seen: int, **content: Any) -> None:
        event = self._messages.Event(wall_time=time.time(), step=samples_seen, **content)
        self._file.write_event(event)
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.sync()
