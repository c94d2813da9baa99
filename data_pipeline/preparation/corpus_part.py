"""What one worker reads of a corpus at a time."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class CorpusPart:
    """A stretch of one corpus."""

    path: str
    number: int
    """From 0 in its corpus."""
    start: int
    """First byte of a plain file, first row group of a .parquet file."""
    stop: int
    before: int = 0
    """Lines or rows that come before what it carries, or before its row groups."""
    read_bytes: int = 0
    """How much of the file's bytes it takes, for the progress."""
    content: bytes | None = field(default=None, repr=False)
    """Whole lines of an archive."""
    rows: list[Any] | None = field(default=None, repr=False)
    """Rows of a data set."""
