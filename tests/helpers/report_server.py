"""The live page of a run, served in a thread of the test."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from train.report.serve import ReportServer, open_server


@contextlib.contextmanager
def serving(run: Path) -> Iterator[ReportServer]:
    """Serve a run on a free port until the block ends."""
    with open_server([run], 0, lambda _: None) as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield found
        finally:
            found.shutdown()
            thread.join(30)
