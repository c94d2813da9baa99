"""A finished part of a preparation on disk: tokens of its documents, what is known of each, and a record of the part.

One file: the tokens, then an entry per document, then a JSON record, then the record's length. It appears under its
name when all of it is on disk, so a part is either finished or not there. Its record says what it was made from: a
part of other input or settings is not used.
"""

import contextlib
import json
import os
import struct
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from configs.errors import DataError

DIGEST_BYTES = 16
_LENGTH = struct.Struct("<Q")
# Read at a time.
_BLOCK_TOKENS = 2**21
_BLOCK_DOCUMENTS = 2**16


@dataclass(frozen=True)
class PartRecord:
    """What a finished part says of itself."""

    fingerprint: str
    """Of the input, its stretch, the tokenizer and the settings."""
    num_documents: int
    num_tokens: int
    left_out: dict[str, int]
    """Documents that were left out, by reason."""
    num_bad_records: int
    first_bad_record: str


def entry_type(num_texts: int, has_digests: bool) -> np.dtype:
    """Type of a document's entry.

    `lengths` are the tokens of each of its texts, eos included in the last; `place` is its hash for holding out;
    `digest` tells repetitions.
    """
    fields: list[tuple[Any, ...]] = [("lengths", "<i4", (num_texts,)), ("place", "<u8")]
    if has_digests:
        fields.append(("digest", f"V{DIGEST_BYTES}"))
    return np.dtype(fields)


class PartWriter:
    """Writes one part beside its place and moves it there when it is whole.

    Args:
        path: of the finished part; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # A name of its own: two tasks of a job array that make the same part do not meet.
        self._partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.making")
        self._file: BinaryIO = self._partial.open("wb")
        self._entries: list[np.ndarray] = []
        self._num_tokens = 0

    def append(self, tokens: np.ndarray, entries: np.ndarray) -> None:
        """Add documents: their tokens in a row, and an entry each."""
        self._file.write(tokens.tobytes())
        self._entries.append(entries)
        self._num_tokens += len(tokens)

    def finish(
        self,
        fingerprint: str,
        left_out: dict[str, int],
        num_bad_records: int,
        first_bad_record: str,
    ) -> None:
        """Write the rest and move the file to its place."""
        record = PartRecord(
            fingerprint,
            sum(map(len, self._entries)),
            self._num_tokens,
            left_out,
            num_bad_records,
            first_bad_record,
        )
        for entries in self._entries:
            self._file.write(entries.tobytes())
        written = json.dumps(asdict(record)).encode()
        self._file.write(written + _LENGTH.pack(len(written)))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._partial, self._path)

    def discard(self) -> None:
        """Remove what was not finished."""
        with contextlib.suppress(OSError):  # a full disk fails once more
            self._file.close()
        self._partial.unlink(missing_ok=True)


class FinishedPart:
    """Reads a finished part.

    Args:
        path: of its file.
        dtype: of the tokens.
        entry: type of the documents' entries.

    Raises:
        DataError: it is damaged.
    """

    def __init__(self, path: Path, dtype: np.dtype, entry: np.dtype) -> None:
        self._path = path
        self._dtype = dtype
        self._entry = entry
        record = read_record(path)
        if record is None:
            raise DataError(
                f"{path} is missing or damaged. Prepare again: only this part is made anew."
            )
        self.record = record

    def entries(self) -> Iterator[np.ndarray]:
        """Yield the entries of up to 65,536 documents at a time."""
        with self._path.open("rb") as file:
            file.seek(self.record.num_tokens * self._dtype.itemsize)
            for start in range(0, self.record.num_documents, _BLOCK_DOCUMENTS):
                count = min(_BLOCK_DOCUMENTS, self.record.num_documents - start)
                yield np.frombuffer(file.read(count * self._entry.itemsize), self._entry)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (tokens, entries) of a few million tokens at a time, or of one longer document."""
        with self._path.open("rb") as file:
            for entries in self.entries():
                ends = np.cumsum(entries["lengths"].sum(axis=1, dtype=np.int64))
                first = done = 0
                while first < len(entries):
                    until = int(np.searchsorted(ends, done + _BLOCK_TOKENS, side="right"))
                    until = max(until, first + 1)
                    count = int(ends[until - 1]) - done
                    tokens = np.frombuffer(file.read(count * self._dtype.itemsize), self._dtype)
                    yield tokens, entries[first:until]
                    first, done = until, int(ends[until - 1])


def read_record(path: Path) -> PartRecord | None:
    """The record of a finished part; None if there is none that can be read."""
    try:
        with path.open("rb") as file:
            file.seek(-_LENGTH.size, os.SEEK_END)
            (length,) = _LENGTH.unpack(file.read())
            file.seek(-_LENGTH.size - length, os.SEEK_END)
            return PartRecord(**json.loads(file.read(length)))
    except (OSError, ValueError, TypeError):
        return None
