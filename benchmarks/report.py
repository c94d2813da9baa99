"""What the records of benchmarks have in common, and where they are written."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.trees import git, machine


class Record:
    """A benchmark's record: commit, machine and load, around its figures.

    Args:
        benchmark: its name.
    """

    def __init__(self, benchmark: str) -> None:
        self._values: dict[str, Any] = {
            "benchmark": benchmark,
            "commit": git("rev-parse", "--short", "HEAD"),
            "machine": machine(),
            "load_before": os.getloadavg(),
        }

    def heading(self) -> str:
        """Machine and commit, for the line above a table."""
        return f"{self._values['machine']}; commit {self._values['commit']}"

    def text(self, **figures: Any) -> str:
        """The whole record as JSON, with the load after the measurement."""
        return json.dumps({**self._values, "load_after": os.getloadavg(), **figures})


def json_file(words: list[str]) -> Path | None:
    """The FILE of `--json FILE`; None without it.

    Raises:
        SystemExit: other words were typed.
    """
    if not words:
        return None
    if len(words) != 2 or words[0] != "--json":
        sys.exit(f"{' '.join(words)}: type --json FILE, or nothing")
    path = Path(words[1])
    if not path.absolute().parent.is_dir():
        sys.exit(f"--json {path}: there is no folder {path.absolute().parent}")
    return path
