"""The part of a corpus that a worker reads at a time."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class CorpusPart:
    """A stretch of one corpus."""

    path: str
    number: int
    """Number of the part in its corpus, from 0."""
    start: int
    """First byte of a plain file, first row group of a .parquet file."""
    stop: int
    before: int = 0
    """Number of lines or rows in the corpus before this part's content or row groups."""
    read_bytes: int = 0
    """Bytes of the file that this part accounts for, for the progress."""
    content: bytes | None = field(default=None, repr=False)
    """Lines of an archive that the part carries with it."""
    rows: list[Any] | None = field(default=None, repr=False)
    """Rows of a data set that the part carries with it."""
