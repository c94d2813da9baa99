"""A finished part of a preparation on disk: tokens of its documents, what is known of each, and a record of the part.

One file: the tokens, then an entry per document, then a JSON record, then the record's length and checksum. It appears
under its name when all of it is on disk, so a part is either finished or not there. Its record says what it was made
from, and the checksums of the rest: a part of other input or settings, or a damaged one, is not used.
"""

import contextlib
import json
import os
import stat
import struct
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from configs.errors import DataError, RecordError
from configs.records import LARGEST_RECORD, Count, ShortText, decode

DIGEST_BYTES = 16
# Length of the record in bytes, and its CRC-32.
_TAIL = struct.Struct("<II")
# Bytes to read at a time.
_BLOCK_TOKENS = 2**21
_BLOCK_DOCUMENTS = 2**16


@dataclass(frozen=True)
class PartRecord:
    """The record that is stored in a finished part."""

    fingerprint: ShortText
    """Fingerprint of the input, the part's stretch of it, the tokenizer and the settings."""
    num_documents: Count
    num_tokens: Count
    num_bytes: Count
    """Bytes of the tokens and entries."""
    tokens_crc32: Count
    entries_crc32: Count
    left_out: dict[str, Count]
    """Documents that were left out, by reason."""
    num_bad_records: Count
    first_bad_record: ShortText


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
        self._num_tokens = self._num_bytes = self._crc32 = 0

    def append(self, tokens: np.ndarray, entries: np.ndarray) -> None:
        """Add documents: their tokens in a row, and an entry each."""
        data = tokens.tobytes()
        self._file.write(data)
        self._num_bytes += len(data)
        self._crc32 = zlib.crc32(data, self._crc32)
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
        entries = b"".join(block.tobytes() for block in self._entries)
        record = PartRecord(
            fingerprint,
            sum(map(len, self._entries)),
            self._num_tokens,
            self._num_bytes + len(entries),
            self._crc32,
            zlib.crc32(entries),
            left_out,
            num_bad_records,
            first_bad_record,
        )
        written = json.dumps(asdict(record)).encode()
        self._file.write(entries + written + _TAIL.pack(len(written), zlib.crc32(written)))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._partial, self._path)

    def discard(self) -> None:
        """Remove what was not finished."""
        with contextlib.suppress(OSError):  # on a full disk this fails again
            self._file.close()
        self._partial.unlink(missing_ok=True)


class FinishedPart:
    """Reads a finished part.

    Args:
        path: path of its file.
        dtype: type of the tokens.
        entry: type of the documents' entries.

    Raises:
        DataError: it is damaged.
    """

    def __init__(self, path: Path, dtype: np.dtype, entry: np.dtype) -> None:
        self._path = path
        self._dtype = dtype
        self._entry = entry
        record = read_part_record(path)
        if record is None:
            raise self._damaged()
        self.record = record
        expected = record.num_tokens * dtype.itemsize + record.num_documents * entry.itemsize
        crc32 = num_tokens = 0
        if record.num_bytes == expected:
            for entries in self.entries():
                crc32 = zlib.crc32(entries.tobytes(), crc32)
                num_tokens += int(entries["lengths"].sum(dtype=np.int64))
        if (record.num_bytes, crc32, num_tokens) != (
            expected,
            record.entries_crc32,
            record.num_tokens,
        ):
            raise self._damaged()

    def entries(self) -> Iterator[np.ndarray]:
        """Yield the entries of up to 65,536 documents at a time."""
        with self._path.open("rb") as file:
            file.seek(self.record.num_tokens * self._dtype.itemsize)
            for start in range(0, self.record.num_documents, _BLOCK_DOCUMENTS):
                count = min(_BLOCK_DOCUMENTS, self.record.num_documents - start)
                yield np.frombuffer(file.read(count * self._entry.itemsize), self._entry)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (tokens, entries) of a few million tokens at a time, or of one longer document.

        Raises:
            DataError: at the end, if the tokens are not those that were written.
        """
        crc32 = 0
        with self._path.open("rb") as file:
            for entries in self.entries():
                ends = np.cumsum(entries["lengths"].sum(axis=1, dtype=np.int64))
                first = done = 0
                while first < len(entries):
                    until = int(np.searchsorted(ends, done + _BLOCK_TOKENS, side="right"))
                    until = max(until, first + 1)
                    count = int(ends[until - 1]) - done
                    data = file.read(count * self._dtype.itemsize)
                    crc32 = zlib.crc32(data, crc32)
                    yield np.frombuffer(data, self._dtype), entries[first:until]
                    first, done = until, int(ends[until - 1])
        if crc32 != self.record.tokens_crc32:
            raise self._damaged()

    def _damaged(self) -> DataError:
        self._path.unlink(missing_ok=True)  # so that it is made again
        return DataError(
            f"{self._path} is missing or damaged. Prepare again: only this part is made anew."
        )


def read_part_record(path: Path) -> PartRecord | None:
    """The record of a finished part; None if there is none that can be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would not end
            return None
        with path.open("rb") as file:
            size = file.seek(-_TAIL.size, os.SEEK_END)
            length, crc32 = _TAIL.unpack(file.read())
            if length > min(size, LARGEST_RECORD):
                return None
            file.seek(size - length)
            text = file.read(length)
        record = decode(text, PartRecord, str(path))
    except (OSError, RecordError):
        return None
    return record if (zlib.crc32(text), record.num_bytes) == (crc32, size - length) else None
