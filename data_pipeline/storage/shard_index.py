"""The .idx of a shard, as far as opening needs it: its header and the place of its last sequence.

It is a header, then per sequence its length (int32), per sequence its place in the .bin (int64, bytes), and the documents'
borders (int64, in sequences), the first 0 and the last the number of sequences.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from configs.errors import DataError
from data_pipeline.storage.open_files import readable

_MAGIC = b"MMIDIDX\x00\x00"
# Magic, version, code of the type, number of sequences, number of document borders.
_HEADER = struct.Struct("<9sQBQQ")
HEADER_BYTES = _HEADER.size
_TYPES: dict[int, type[np.integer]] = {
    1: np.uint8,
    2: np.int8,
    3: np.int16,
    4: np.int32,
    5: np.int64,
    8: np.uint16,
}
# Megatron's rule for the type of a token: below this, two bytes are enough.
_SMALL_VOCABULARY = 65_500


@dataclass(frozen=True)
class Index:
    """The values that are read from an .idx."""

    dtype: np.dtype
    num_sequences: int
    num_documents: int
    data_bytes: int
    """Size of the .bin that it belongs to."""

    @property
    def holds_records(self) -> bool:
        """True for instructions: each document is a prompt and its target."""
        return self.num_documents > 0 and self.num_sequences == 2 * self.num_documents


def read_index(prefix: str) -> Index:
    """Read the ends of an .idx.

    Raises:
        DataError: it is not an index of Megatron's, or truncated.
        StorageError: the file system failed.
    """
    path = Path(f"{prefix}.idx")
    with readable(path), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size or not header.startswith(_MAGIC):
            raise DataError(f"{path} is not an index of token shards. Prepare the corpus again.")
        _, version, code, num_sequences, num_borders = _HEADER.unpack(header)
        if version != 1 or code not in _TYPES:
            raise DataError(
                f"{path} has version {version} and token type {code}; this program reads version 1 with integer tokens."
            )
        lengths, pointers = _HEADER.size, _HEADER.size + 4 * num_sequences
        expected = pointers + 8 * num_sequences + 8 * num_borders
        if size not in (expected, expected + num_sequences):  # Megatron may add a mode per sequence
            raise DataError(
                f"{path} has {size:,} bytes, but its header requires {expected:,}: it is truncated or damaged. "
                "Prepare the corpus again."
            )
        dtype = np.dtype(_TYPES[code])
        data_bytes = 0
        if num_sequences:
            last_length = _number_at(file, lengths + 4 * (num_sequences - 1), "<i")
            last_pointer = _number_at(file, pointers + 8 * (num_sequences - 1), "<q")
            data_bytes = last_pointer + last_length * dtype.itemsize
            if last_length < 0 or last_pointer < 0 or last_pointer % dtype.itemsize:
                raise DataError(
                    f"{path} is damaged: its last sequence begins at byte {last_pointer:,} and has {last_length:,} "
                    "tokens. Prepare the corpus again."
                )
    return Index(dtype, num_sequences, max(num_borders - 1, 0), data_bytes)


def token_type(vocab_size: int) -> np.dtype:
    """Type of a token in a .bin, by Megatron's rule."""
    return np.dtype(np.uint16 if vocab_size < _SMALL_VOCABULARY else np.int32)


def index_header(dtype: np.dtype, num_sequences: int, num_documents: int) -> bytes:
    """The first 34 bytes of an .idx."""
    code = next(code for code, known in _TYPES.items() if dtype == known)
    return _HEADER.pack(_MAGIC, 1, code, num_sequences, num_documents + 1)


def _number_at(file: BinaryIO, offset: int, form: str) -> int:
    file.seek(offset)
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]
