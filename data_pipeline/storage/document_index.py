"""Which document a stored token belongs to: a binary search in the .idx, which may be larger than memory.

Of n documents about log2(n) entries are read, a billion documents take thirty.
"""

import os
import struct
from bisect import bisect_right
from dataclasses import dataclass

from configs.errors import DataError
from data_pipeline.storage.shards import HEADER_BYTES, Index


@dataclass(frozen=True)
class Piece:
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
        self._path = f"{prefix}.idx"
        self._index = index
        self._pointers = HEADER_BYTES + 4 * index.num_sequences
        self._borders = self._pointers + 8 * index.num_sequences
        try:
            self._file = open(self._path, "rb", buffering=0)  # noqa: SIM115  (open as long as the index lives)
        except OSError as error:
            raise DataError(f"{self._path} cannot be read: {error.strerror}.") from error

    def start_of(self, document: int) -> int:
        """First token of a document, counted from the beginning of the shard; that of the one after the last is its end."""
        index = self._index
        if document >= index.num_documents:
            return index.data_bytes // index.dtype.itemsize
        return self.start_of_sequence(self._number_at(self._borders + 8 * document))

    def start_of_sequence(self, sequence: int) -> int:
        """First token of a sequence, of which a document may have several; as `start_of`."""
        index = self._index
        if sequence >= index.num_sequences:
            return index.data_bytes // index.dtype.itemsize
        return self._number_at(self._pointers + 8 * sequence) // index.dtype.itemsize

    def document_at(self, token: int) -> int:
        """Number of the document that holds a token; documents without tokens hold none."""
        return bisect_right(range(self._index.num_documents), token, key=self.start_of) - 1

    def pieces(self, start: int, stop: int) -> list[Piece]:
        """The documents that tokens [start, stop) of the shard are taken from, in order; those without tokens left out."""
        found: list[Piece] = []
        if start >= stop:
            return found
        document = self.document_at(start)
        first = self.start_of(document)
        while first < stop:
            end = self.start_of(document + 1)
            if end > first:
                piece = Piece(document, max(start - first, 0), min(stop, end) - first, end - first)
                found.append(piece)
            document, first = document + 1, end
        return found

    def _number_at(self, offset: int) -> int:
        data = os.pread(self._file.fileno(), 8, offset)
        if len(data) != 8:
            raise DataError(
                f"{self._path} ends before byte {offset + 8:,}. Prepare the corpus again."
            )
        return struct.unpack("<q", data)[0]
