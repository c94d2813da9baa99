"""Which document a stored token belongs to: a binary search in the .idx, which may be larger than memory.

Of n documents about log2(n) entries are read, a billion documents take thirty.
"""

import os
import struct
from bisect import bisect_right
from dataclasses import dataclass

from configs.errors import DataError
from data_pipeline.storage.open_files import FileStamp, open_to_keep, readable
from data_pipeline.storage.shard_index import HEADER_BYTES, Index


@dataclass(frozen=True)
class DocumentSlice:
    """A stretch of one document."""

    document: int
    """Number of the document in its shard, from 0."""
    start: int
    """First token, counted from the document's beginning."""
    stop: int
    """One past its last token."""
    length: int
    """Tokens of the whole document."""


class DocumentIndex:
    """Borders of the documents of one shard, read where they are asked for.

    Args:
        prefix: path of the shard without ending.
        index: what `data_pipeline.storage.shards.read_index` says of it.

    Raises:
        DataError: the .idx cannot be read.
    """

    def __init__(self, prefix: str, index: Index) -> None:
        self._prefix = prefix
        self._path = f"{prefix}.idx"
        self._index = index
        self._lengths = HEADER_BYTES
        self._pointers = HEADER_BYTES + 4 * index.num_sequences
        self._borders = self._pointers + 8 * index.num_sequences
        self.file = open_to_keep(self._path)
        """Descriptor of the .idx, for positioned reads."""
        self.stamp = FileStamp.of(self.file)
        """Size and time of the .idx when it was opened."""

    def start_of(self, document: int) -> int:
        """First token of a document, counted from the beginning of the shard; that of the one after the last is its end.

        Raises:
            DataError: the .idx is damaged here.
            StorageError: the file system failed.
        """
        index = self._index
        if document >= index.num_documents:
            return index.data_bytes // index.dtype.itemsize
        (sequence,) = self._numbers_at(self._borders + 8 * document, "<q")
        if not 0 <= sequence <= index.num_sequences:
            raise self._damaged(f"document {document:,} begins with sequence {sequence:,}")
        return self.start_of_sequence(sequence)

    def start_of_sequence(self, sequence: int) -> int:
        """First token of a sequence, of which a document may have several; as `start_of`."""
        index = self._index
        if sequence >= index.num_sequences:
            return index.data_bytes // index.dtype.itemsize
        (pointer,) = self._numbers_at(self._pointers + 8 * sequence, "<q")
        if not 0 <= pointer <= index.data_bytes or pointer % index.dtype.itemsize:
            raise self._damaged(f"sequence {sequence:,} begins at byte {pointer:,}")
        return pointer // index.dtype.itemsize

    def record_at(self, document: int) -> tuple[int, int, int]:
        """First token of a document of two sequences, of its second one, and one past its last token.

        Raises:
            DataError: the .idx is damaged here.
            StorageError: the file system failed.
        """
        lengths = self._numbers_at(self._lengths + 8 * document, "<2i")
        start = self.start_of_sequence(2 * document)
        stop = self.start_of_sequence(2 * document + 2)
        if min(lengths) < 0 or start + sum(lengths) != stop:
            raise self._damaged(f"the sequences of document {document:,} do not fill its place")
        return start, start + lengths[0], stop

    def document_at(self, token: int) -> int:
        """Number of the document that holds a token; documents without tokens hold none.

        Raises:
            DataError: the .idx is damaged, or the shard has no such token.
            StorageError: the file system failed.
        """
        starts: dict[int, int] = {}

        def start_of(document: int) -> int:
            return starts.setdefault(document, self.start_of(document))

        found = bisect_right(range(self._index.num_documents), token, key=start_of) - 1
        known = [starts.get(number, -1) for number in (found, found + 1)]
        if found + 1 >= self._index.num_documents:
            known[1] = self.start_of(found + 1)
        if found < 0 or not known[0] <= token < known[1]:
            raise self._damaged(f"no document holds token {token:,}")
        return found

    def pieces(self, start: int, stop: int) -> list[DocumentSlice]:
        """The documents that tokens [start, stop) of the shard are taken from, in order; those without tokens left out."""
        found: list[DocumentSlice] = []
        if start >= stop:
            return found
        document = self.document_at(start)
        first = self.start_of(document)
        while first < stop:
            end = self.start_of(document + 1)
            if end < first:
                raise self._damaged(f"document {document + 1:,} begins before the one before it")
            if end > first:
                piece = DocumentSlice(
                    document, max(start - first, 0), min(stop, end) - first, end - first
                )
                found.append(piece)
            document, first = document + 1, end
        return found

    def _numbers_at(self, offset: int, form: str) -> tuple[int, ...]:
        size = struct.calcsize(form)
        with readable(self._path):
            data = os.pread(self.file.fileno(), size, offset)
        if len(data) != size:
            raise DataError(
                f"{self._path} ends before byte {offset + size:,}. Prepare the corpus again."
            )
        return struct.unpack(form, data)

    def _damaged(self, what: str) -> DataError:
        return DataError(
            f"{self._path} is damaged: {what}, of {self._index.num_sequences:,} sequences and "
            f"{self._index.data_bytes:,} bytes. Look with python -m data_pipeline verify {self._prefix}, and prepare the "
            "corpus again or copy it anew."
        )
